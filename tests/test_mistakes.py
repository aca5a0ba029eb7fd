"""What a detector takes for what, from boxes laid by hand."""

import unittest

import numpy as np
import torch

from lab.drawing import draw
from tasks.detection import mistakes
from tasks.detection.mistakes import NOTHING, Pair
from tests.support import words_of
from tests.test_detection_meter import FAR, A, B, C, Told, truth

CLASSES = ("stop", "give/way", "no_entry")


class Pictures:
    """Data of which each picture is grey but for one pixel."""

    def picture(self, index: int) -> np.ndarray:
        pixels = np.full((200, 300, 3), 100, np.uint8)
        pixels[25, 25] = 255
        return pixels


class MatchTest(unittest.TestCase):
    def pairs(self, target, *found):
        return mistakes.matches(Told(found).detect(None), [target])

    def kinds(self, target, *found):
        return sorted((pair.true, pair.found) for pair in self.pairs(target, *found))

    def test_right_other_missed_and_nothing_there(self):
        target = truth((0, A), (1, B), (2, C))
        found = (0.9, 0, A), (0.8, 2, B), (0.7, 1, FAR)
        self.assertEqual(self.kinds(target, *found), [(-1, 1), (0, 0), (1, 2), (2, -1)])
        matrix = mistakes.confusion_of(self.pairs(target, *found), 3)
        self.assertEqual(matrix.tolist(), [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 1, 0, 0]])

    def test_the_surest_takes_the_box(self):
        """Whatever its class; the second one is of nothing. Order of the list does not count."""
        near = (2, 0, 52, 50)
        for found in (((0.6, 0, A), (0.9, 1, near)), ((0.9, 1, near), (0.6, 0, A))):
            self.assertEqual(self.kinds(truth((0, A)), *found), [(-1, 0), (0, 1)])

    def test_each_takes_the_box_that_it_overlaps_most(self):
        other = (0, 10, 50, 60)
        self.assertEqual(self.kinds(truth((0, A), (1, other)), (0.9, 1, other)), [(0, -1), (1, 1)])

    def test_what_is_not_asked_for(self):
        """Faint detections; ignored boxes, whether they are found or not."""
        self.assertEqual(self.kinds(truth(), (0.29, 0, A)), [])
        self.assertEqual(self.kinds(truth((0, A, True)), (0.9, 0, A)), [])
        self.assertEqual(self.kinds(truth((0, A, True))), [])
        self.assertEqual(self.kinds(truth((0, A, True)), (0.9, 0, B)), [(-1, 0)])
        self.assertEqual(self.kinds(truth((0, A)), (0.9, 0, (30, 0, 80, 50))), [(-1, 0), (0, -1)])

    def test_a_part_of_an_ignored_box(self):
        """COCO's rule of a crowd: of what is found half is within, however small it is."""
        crowd = truth((0, (0, 0, 100, 100), True))
        for box, expected in (((0, 0, 20, 20), []), ((90, 0, 115, 20), [(-1, 0)]),
                              ((90, 0, 109, 20), [])):  # fmt: skip
            self.assertEqual(self.kinds(crowd, (0.9, 0, box)), expected, box)

    def test_shares_covered(self):
        rng = np.random.default_rng(0)
        corners = torch.from_numpy(rng.uniform(0, 100, (2, 9, 2, 2)))
        boxes, regions = torch.cat((corners.amin(2), corners.amax(2)), 2)
        for box, shares in zip(boxes, mistakes.shares_covered(boxes, regions), strict=True):
            sides = torch.minimum(box[2:], regions[:, 2:]) - torch.maximum(box[:2], regions[:, :2])
            expected = sides.clamp(min=0).prod(1) / (box[2:] - box[:2]).prod()
            torch.testing.assert_close(shares, expected)
        empty = torch.tensor([[3.0, 3, 3, 9]])
        self.assertEqual(mistakes.shares_covered(empty, regions).abs().max(), 0)

    def test_cost(self):
        """By how sure it was; what was missed, by how large it is."""
        pairs = [
            Pair(0, 0, 0, 0.99, A), Pair(0, 0, 1, 0.4, A), Pair(0, NOTHING, 1, 0.9, A),
            Pair(0, 0, NOTHING, 0.0, (0, 0, 30, 70)), Pair(0, 0, NOTHING, 0.0, (0, 0, 10, 20)),
        ]  # fmt: skip
        worst = mistakes.costliest(pairs)
        self.assertEqual([round(pair.cost, 3) for pair in worst], [0.9, 0.7, 0.4, 0.2])


class PictureTest(unittest.TestCase):
    def test_matrix(self):
        """Classes that are neither there nor found are left out."""
        pairs = [Pair(0, 0, 0, 0.9, A), Pair(0, 0, 2, 0.8, A), Pair(0, 2, NOTHING, 0.0, A)]
        picture = mistakes.draw_confusion(mistakes.confusion_of(pairs, 3), CLASSES)
        self.assertEqual(
            picture.title,
            "1 found as what they are, 1 as another class, 1 missed, 0 where nothing is",
        )
        (part,) = picture.parts
        self.assertEqual(list(part.classes), ["stop", "no_entry", "nothing"])
        self.assertEqual(part.counts.tolist(), [[1, 1, 0], [0, 0, 1], [0, 0, 0]])

    def test_crops(self):
        """A square around the box, also at the edge; names that are files' names."""
        worst = [Pair(0, 1, NOTHING, 0.0, A), Pair(0, NOTHING, 2, 0.5, (280, 180, 300, 200))]
        crops = dict(mistakes.crops_of(Pictures(), worst, CLASSES))
        self.assertEqual(
            list(crops),
            ["mistake_0000_give_way_missed.jpg", "mistake_0001_nothing_as_no_entry.jpg"],
        )
        first, second = (np.array(own) for own in crops.values())
        self.assertEqual(first.shape, (96, 96, 3))
        brightest = np.unravel_index(first[..., 0].argmax(), (96, 96))
        self.assertTrue(all(46 <= place <= 49 for place in brightest), brightest)  # its middle
        self.assertEqual((second[-1, -1].max(), second[0, 0].max()), (0, 100))

    def test_sheet(self):
        worst = [Pair(0, 1, 0, 0.75, A), Pair(0, 1, NOTHING, 0.0, A)]
        shown = words_of(draw(mistakes.draw_mistakes(Pictures(), worst, CLASSES)))
        self.assertTrue({"found as stop, 75%", "missed"} <= set(shown), shown)


if __name__ == "__main__":
    unittest.main()
