"""Detectors: parts, shapes and losses against loops; what they find; training through the loop."""

import unittest

import torch
import torch.nn.functional as F
from torch import Tensor

from tasks.detection.boxes import multibox_target
from tasks.detection.detector import as_rows, part
from tasks.detection.ssd import (
    SIGN_SIZES,
    TinySSD,
    base_net,
    bbox_predictor,
    cls_predictor,
    concat_preds,
    down_sample_blk,
    flatten_pred,
    multibox_loss,
)


def target(*boxes: tuple[float, float, float, float, int]) -> dict[str, Tensor]:
    """Return a target of boxes, each with its class behind its edges; of class -1, ignored ones."""
    rows = torch.tensor(boxes, dtype=torch.float32).view(-1, 5)
    labels = rows[:, 4].long()
    return {"boxes": rows[:, :4], "labels": labels.clamp(min=0), "ignored": labels < 0}


def trained(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network in evaluation mode whose batch norms have seen something."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.copy_(0.1 * torch.randn(len(module.weight), generator=generator))
            module.running_var.copy_(0.5 + torch.rand(len(module.weight), generator=generator))
    return network.eval()


class TestParts(unittest.TestCase):
    def test_predictors_of_the_book(self):
        first = cls_predictor(8, 5, 10)(torch.zeros(2, 8, 20, 20))
        second = cls_predictor(16, 3, 10)(torch.zeros(2, 16, 10, 10))
        self.assertEqual((first.shape, second.shape), ((2, 55, 20, 20), (2, 33, 10, 10)))
        self.assertEqual(concat_preds([first, second]).shape, (2, 25300))
        self.assertEqual(bbox_predictor(8, 5)(torch.zeros(2, 8, 20, 20)).shape, (2, 20, 20, 20))

    def test_blocks_of_the_book(self):
        self.assertEqual(down_sample_blk(3, 10)(torch.zeros(2, 3, 20, 20)).shape, (2, 10, 10, 10))
        self.assertEqual(base_net()(torch.zeros(2, 3, 256, 256)).shape, (2, 64, 32, 32))

    def test_predictions_are_laid_out_as_anchors_are(self):
        count, values = 3, 2
        pred = torch.arange(2 * count * values * 4 * 5).view(2, count * values, 4, 5)
        flat = flatten_pred(pred).view(2, 4 * 5 * count, values)
        for y, x, anchor in ((0, 0, 1), (2, 3, 0), (3, 4, 2)):
            expected = pred[1, anchor * values : (anchor + 1) * values, y, x]
            self.assertEqual(flat[1, (y * 5 + x) * count + anchor].tolist(), expected.tolist())

    def test_shapes_of_the_book(self):
        with torch.no_grad():
            anchors, classes, offsets = TinySSD(num_classes=1)(torch.zeros(32, 3, 256, 256))
        self.assertEqual(anchors.shape, (1, 5444, 4))
        self.assertEqual(classes.shape, (32, 5444, 2))
        self.assertEqual(offsets.shape, (32, 21776))

    def test_faults_of_the_printed_code(self):
        """`nun_anchors=4` names nothing: predictors keep another number, and reshaping fails."""
        with self.assertRaises(TypeError):
            cls_predictor(64, nun_anchors=4, num_classes=1)
        with self.assertRaises(TypeError):
            TinySSD(num_classes=1, nun_anchors=4)
        features, anchors = torch.zeros(2, 64, 32, 32), 32 * 32 * 4
        for num_anchors in (5, 3):  # of the book's examples before it
            left_over = concat_preds([cls_predictor(64, num_anchors, 1)(features)])
            with self.assertRaises(RuntimeError):
                left_over.reshape(2, anchors, 2)
        ours = concat_preds([cls_predictor(64, 4, 1)(features)])
        self.assertEqual(ours.reshape(2, anchors, 2).shape, (2, anchors, 2))


class TestTinySSD(unittest.TestCase):
    def test_anchors_have_one_size_in_pixels(self):
        network = trained(TinySSD(1))
        sides = []
        for height, width in ((256, 256), (512, 768)):
            with torch.no_grad():
                anchors = network(torch.zeros(1, 3, height, width))[0][0]
            boxes = anchors * torch.tensor([width, height, width, height])
            sides.append(boxes[:, 2:] - boxes[:, :2])
            first = (boxes[0, :2] + boxes[0, 2:]) / 2
            torch.testing.assert_close(first, torch.tensor([4.0, 4.0]))
        torch.testing.assert_close(sides[0][:4], sides[1][:4])
        torch.testing.assert_close(sides[0][-4:], sides[1][-4:])

    def test_a_whole_picture_is_searched_as_its_crops_are(self):
        """Away from the crop's edges, each scale says the same of its anchors."""
        network = trained(TinySSD(2, SIGN_SIZES))
        torch.manual_seed(0)
        picture = torch.randn(1, 3, 768, 768)
        with torch.no_grad():
            whole = self.by_map(network(picture), 768)
            crop = self.by_map(network(picture[..., 256:512, 256:512]), 256)
        for predictions, of_crop, stride, edge in zip(whole, crop, (8, 16), (6, 5), strict=True):
            inner = slice(256 // stride + edge, 512 // stride - edge)
            for ours, expected in zip(predictions, of_crop, strict=True):
                expected = expected[edge:-edge, edge:-edge]
                torch.testing.assert_close(ours[inner, inner], expected, atol=1e-4, rtol=1e-4)

    @staticmethod
    def by_map(predictions: tuple[Tensor, Tensor, Tensor], side: int) -> list[list[Tensor]]:
        """Return classes and offsets of the first two maps, (h, w, anchors * values) each."""
        _, classes, offsets = predictions
        maps, start = [], 0
        for rows in (side // 8, side // 16):
            own = slice(start, start := start + rows * rows * 4)
            both = (classes[0], offsets.view(-1, 4))
            maps.append([values[own].view(rows, rows, -1) for values in both])
        return maps

    def test_images_of_any_size(self):
        network = trained(TinySSD(3))
        for size in ((64, 64), (100, 333), (300, 200)):
            with torch.no_grad():
                found = network.detect(torch.randn(2, 3, *size), threshold=0.0)
            for each in found:
                self.assertTrue(len(each["boxes"]))
                self.assertTrue((each["boxes"] >= 0).all())
                self.assertLessEqual(each["boxes"][:, 2].max(), size[1])
                self.assertLessEqual(each["boxes"][:, 3].max(), size[0])
                self.assertTrue((each["scores"].diff() <= 0).all())
                self.assertTrue(((each["labels"] >= 0) & (each["labels"] < 3)).all())

    def test_loss_against_a_loop(self):
        torch.manual_seed(0)
        anchors = torch.rand(1, 40, 2)
        anchors = torch.cat((anchors * 0.6, anchors * 0.6 + 0.35), 2)
        targets = [
            target((10, 20, 44, 56, 1), (50, 40, 90, 78, 0)),
            target((0, 0, 60, 50, -1)),
        ]
        classes, offsets = torch.randn(2, 40, 3), torch.randn(2, 160)
        losses = multibox_loss(anchors, classes, offsets, targets, 100, 100)
        truth = multibox_target(anchors, as_rows(part(targets)[0], 100, 100))
        class_losses, box_losses = [], []
        for n in range(2):
            positive, negative, distance = [], [], 0.0
            for a in range(40):
                kind = int(truth[2][n, a])
                each = float(-classes[n, a].log_softmax(0)[kind])
                x = 100 * float(anchors[0, a, 0] + anchors[0, a, 2]) / 2
                y = 100 * float(anchors[0, a, 1] + anchors[0, a, 3]) / 2
                if kind:
                    positive.append(each)
                    for k in range(4):
                        gap = abs(float(offsets[n, 4 * a + k] - truth[0][n, 4 * a + k]))
                        distance += gap - 0.5 if gap > 1 else gap * gap / 2
                elif n == 0 or not (x < 60 and y < 50):
                    negative.append(each)
            worst = sorted(negative)[::-1][: max(8, 3 * len(positive))]
            class_losses.append((sum(positive) + sum(worst)) / max(1, len(positive)))
            box_losses.append(distance / max(1, len(positive)))
        self.assertAlmostEqual(float(losses["class_loss"]), sum(class_losses) / 2, places=3)
        self.assertAlmostEqual(float(losses["box_loss"]), sum(box_losses) / 2, places=3)

    def test_what_is_predicted_is_found(self):
        """Predictions that say the truth give the true boxes, in pixels, once each."""
        truth = [target((40, 50, 70, 85, 1), (150, 60, 260, 170, 0)), target()]
        network = TinySSD(2, SIGN_SIZES).eval()
        images = torch.zeros(2, 3, 200, 300)
        with torch.no_grad():
            filled = F.pad(images, (0, 212, 0, 56))
            anchors, classes, _ = network(filled)
        offsets, _, kinds = multibox_target(anchors, as_rows(truth, 256, 512))
        logits = 20.0 * F.one_hot(kinds, 3)
        network.forward = lambda images: (anchors, logits.view_as(classes), offsets)
        found = network.detect(images)
        order = found[0]["labels"].argsort(descending=True)
        self.assertEqual(found[0]["labels"][order].tolist(), [1, 0])
        torch.testing.assert_close(
            found[0]["boxes"][order], truth[0]["boxes"], atol=1e-2, rtol=1e-3
        )
        self.assertEqual(len(found[1]["boxes"]), 0)


if __name__ == "__main__":
    unittest.main()
