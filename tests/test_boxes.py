"""Anchors, assignment, offsets, targets and NMS against naive loops and the book's numbers."""

import math
import unittest

import torch
from torch import Tensor

from tasks.detection.boxes import (
    assign_anchor_to_bbox,
    box_iou,
    multibox_detection,
    multibox_prior,
    multibox_target,
    nms,
    offset_boxes,
    offset_inverse,
)

# The book's example of a dog and a cat (14.4.3.4): class and box; five anchors.
TRUTH = torch.tensor([[0, 0.1, 0.08, 0.52, 0.92], [1, 0.55, 0.2, 0.9, 0.88]])
ANCHORS = torch.tensor(
    [
        [0, 0.1, 0.2, 0.3],
        [0.15, 0.2, 0.4, 0.4],
        [0.63, 0.05, 0.88, 0.98],
        [0.66, 0.45, 0.8, 0.8],
        [0.57, 0.3, 0.92, 0.9],
    ]
)
# And of four predictions for it (14.4.4).
FOUND = torch.tensor(
    [
        [0.1, 0.08, 0.52, 0.92],
        [0.08, 0.2, 0.56, 0.95],
        [0.15, 0.3, 0.62, 0.91],
        [0.55, 0.2, 0.9, 0.88],
    ]
)
PROBABILITIES = torch.tensor([[0.0] * 4, [0.9, 0.8, 0.7, 0.1], [0.1, 0.2, 0.3, 0.9]])


def random_boxes(count: int, seed: int = 0) -> Tensor:
    """Return boxes of some area within the unit square, (count, 4)."""
    corners = torch.rand(count, 2, 2, generator=torch.Generator().manual_seed(seed))
    return torch.cat((corners.amin(1), corners.amax(1) + 0.01), 1)


def naive_iou(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


class TestThreshold(unittest.TestCase):
    """An IoU of exactly the threshold: 0.5 of these two, in numbers that floats have exactly."""

    pair = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.5]])

    def test_an_anchor_reaches_it(self):
        """Two anchors like that: one is the box's own, the other takes it by its overlap."""
        anchors = self.pair[[1, 1]]
        self.assertEqual(box_iou(self.pair[:1], anchors).tolist(), [[0.5, 0.5]])
        self.assertEqual(assign_anchor_to_bbox(self.pair[:1], anchors).tolist(), [0, 0])
        above = assign_anchor_to_bbox(self.pair[:1], anchors, iou_threshold=0.5 + 2**-20)
        self.assertEqual(sorted(above.tolist()), [-1, 0])

    def test_a_box_at_it_stays(self):
        """Suppression takes what is above."""
        scores = torch.tensor([0.9, 0.8])
        self.assertEqual(nms(self.pair, scores, 0.5).tolist(), [0, 1])
        self.assertEqual(nms(self.pair, scores, 0.5 - 2**-20).tolist(), [0])


class TestPrior(unittest.TestCase):
    def test_numbers_of_the_book(self):
        anchors = multibox_prior(torch.empty(1, 3, 561, 728), [0.75, 0.5, 0.25], [1, 2, 0.5])
        self.assertEqual(anchors.shape, (1, 2_042_040, 4))
        box = anchors.view(561, 728, 5, 4)[250, 250, 0]
        torch.testing.assert_close(box, torch.tensor([0.06, 0.07, 0.63, 0.82]), atol=5e-3, rtol=0)

    def test_against_a_loop(self):
        height, width, sizes, ratios = 3, 5, [0.4, 0.7], [2.0, 1.0, 0.25]
        expected = []
        for y in range(height):
            for x in range(width):
                for size, ratio in [(0.4, 2.0), (0.7, 2.0), (0.4, 1.0), (0.4, 0.25)]:
                    wide = size * math.sqrt(ratio) * height / width / 2
                    tall = size / math.sqrt(ratio) / 2
                    cx, cy = (x + 0.5) / width, (y + 0.5) / height
                    expected.append([cx - wide, cy - tall, cx + wide, cy + tall])
        anchors = multibox_prior(torch.empty(height, width), sizes, ratios)
        torch.testing.assert_close(anchors, torch.tensor([expected]))


class TestOffsets(unittest.TestCase):
    def test_against_a_loop(self):
        anchors, boxes = random_boxes(20), random_boxes(20, seed=1)
        for anchor, box, offset in zip(
            anchors.tolist(), boxes.tolist(), offset_boxes(anchors, boxes).tolist(), strict=True
        ):
            wide, tall = anchor[2] - anchor[0], anchor[3] - anchor[1]
            expected = [
                10 * ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / wide,
                10 * ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / tall,
                5 * math.log((box[2] - box[0]) / wide + 1e-6),
                5 * math.log((box[3] - box[1]) / tall + 1e-6),
            ]
            for value, wanted in zip(offset, expected, strict=True):
                self.assertAlmostEqual(value, wanted, delta=1e-3 * max(1, abs(wanted)))

    def test_inverse_undoes_it(self):
        anchors, boxes = random_boxes(50), random_boxes(50, seed=1)
        back = offset_inverse(anchors, offset_boxes(anchors, boxes))
        torch.testing.assert_close(back, boxes, atol=1e-4, rtol=1e-4)

    def test_a_box_without_area_has_finite_offsets(self):
        point = torch.tensor([[0.5, 0.5, 0.5, 0.5]])
        self.assertTrue(offset_boxes(random_boxes(1), point).isfinite().all())

    def test_iou_against_a_loop(self):
        a, b = random_boxes(6), random_boxes(7, seed=1)
        expected = [[naive_iou(x, y) for y in b.tolist()] for x in a.tolist()]
        torch.testing.assert_close(box_iou(a, b), torch.tensor(expected))


def naive_assignment(truth: list, anchors: list, threshold: float) -> list[int]:
    """Assign as the book says it in words (14.4.3.1)."""
    assigned = [-1] * len(anchors)
    pairs = {
        (i, j): naive_iou(anchor, box)
        for i, anchor in enumerate(anchors)
        for j, box in enumerate(truth)
    }
    for i in range(len(anchors)):
        j = max(range(len(truth)), key=lambda j: pairs[i, j])
        if pairs[i, j] >= threshold:
            assigned[i] = j
    while pairs:
        i, j = max(pairs, key=pairs.get)
        assigned[i] = j
        pairs = {(k, m): iou for (k, m), iou in pairs.items() if k != i and m != j}
    return assigned


class TestTargets(unittest.TestCase):
    def test_assignment_of_the_book(self):
        self.assertEqual(assign_anchor_to_bbox(TRUTH[:, 1:], ANCHORS).tolist(), [-1, 0, 1, -1, 1])

    def test_assignment_against_a_loop(self):
        for seed in range(8):
            truth, anchors = random_boxes(4, seed), random_boxes(40, seed + 100)
            assigned = assign_anchor_to_bbox(truth, anchors, "cpu", 0.3).tolist()
            self.assertEqual(assigned, naive_assignment(truth.tolist(), anchors.tolist(), 0.3))

    def test_more_boxes_than_anchors(self):
        truth, anchors = random_boxes(5), random_boxes(2, seed=1)
        assigned = assign_anchor_to_bbox(truth, anchors).tolist()
        self.assertEqual(assigned, naive_assignment(truth.tolist(), anchors.tolist(), 0.5))
        self.assertEqual(len(set(assigned)), 2)

    def test_targets_of_the_book(self):
        offsets, mask, classes = multibox_target(ANCHORS[None], TRUTH[None])
        self.assertEqual(classes.tolist(), [[0, 1, 2, 0, 2]])
        self.assertEqual(mask.view(5, 4).tolist(), [[0] * 4, [1] * 4, [1] * 4, [0] * 4, [1] * 4])
        printed = torch.tensor(
            [
                [0, 0, 0, 0],
                [1.40, 10.0, 2.59, 7.18],
                [-1.20, 0.269, 1.68, -1.57],
                [0, 0, 0, 0],
                [-0.571, -1.0, -8.94e-7, 0.626],
            ]
        )
        torch.testing.assert_close(offsets.view(5, 4), printed, atol=5e-3, rtol=0)

    def test_rows_that_fill_up_are_no_boxes(self):
        filled = torch.cat((TRUTH, torch.tensor([[-1.0, 0, 0, 0, 0]])))
        for ours, wanted in zip(
            multibox_target(ANCHORS[None], filled[None]),
            multibox_target(ANCHORS[None], TRUTH[None]),
            strict=True,
        ):
            torch.testing.assert_close(ours, wanted)

    def test_a_picture_without_boxes_is_all_background(self):
        for labels in (torch.zeros(2, 0, 5), torch.full((2, 3, 5), -1.0)):
            offsets, mask, classes = multibox_target(ANCHORS[None], labels)
            self.assertEqual((offsets.shape, mask.shape), ((2, 20), (2, 20)))
            self.assertEqual(classes.shape, (2, 5))
            self.assertFalse(offsets.any() or mask.any() or classes.any())


class TestDetection(unittest.TestCase):
    def test_nms_against_a_loop(self):
        boxes = random_boxes(60)
        scores = torch.rand(60, generator=torch.Generator().manual_seed(1))
        left = sorted(range(60), key=lambda k: -scores[k])
        kept = []
        while left:
            best = left.pop(0)
            kept.append(best)
            ious = {k: naive_iou(boxes[best].tolist(), boxes[k].tolist()) for k in left}
            left = [k for k in left if ious[k] <= 0.4]
        self.assertEqual(nms(boxes, scores, 0.4).tolist(), kept)
        self.assertLess(len(kept), 60)

    def test_detections_of_the_book(self):
        found = multibox_detection(PROBABILITIES[None], torch.zeros(1, 16), FOUND[None], 0.5)
        printed = torch.tensor(
            [
                [0, 0.90, 0.10, 0.08, 0.52, 0.92],
                [1, 0.90, 0.55, 0.20, 0.90, 0.88],
                [-1, 0.80, 0.08, 0.20, 0.56, 0.95],
                [-1, 0.70, 0.15, 0.30, 0.62, 0.91],
            ]
        )
        torch.testing.assert_close(found, printed[None])

    def test_what_is_improbable_is_background(self):
        found = multibox_detection(
            PROBABILITIES[None] / 2, torch.zeros(1, 16), FOUND[None], 1.0, pos_threshold=0.42
        )[0]
        self.assertEqual(found[:, 0].tolist(), [0, 1, -1, -1])
        torch.testing.assert_close(found[:, 1], torch.tensor([0.45, 0.45, 0.6, 0.65]))


if __name__ == "__main__":
    unittest.main()
