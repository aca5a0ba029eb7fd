"""Average precision by hand: order, thresholds, sizes, what is ignored, what counts as one."""

import unittest

import torch

from lab.runtime import Runtime
from tasks.detection.meter import DetectionMeter

ALONE = Runtime(torch.device("cpu"))
A, B, C = (0, 0, 50, 50), (100, 0, 150, 50), (200, 0, 250, 50)
FAR = (500, 500, 550, 550)


class Told:
    """A network that finds what it was told to: (score, label, box) of each picture."""

    def __init__(self, *pictures):
        self.pictures = pictures

    def detect(self, images):
        return [
            {
                "boxes": torch.tensor([box for *_, box in found]).float().reshape(-1, 4),
                "scores": torch.tensor([score for score, *_ in found]),
                "labels": torch.tensor([label for _, label, _ in found], dtype=torch.int64),
            }
            for found in self.pictures
        ]


def truth(*boxes):
    """Return the target of a picture: (label, box) or (label, box, ignored) of each."""
    return {
        "boxes": torch.tensor([box for _, box, *_ in boxes]).float().reshape(-1, 4),
        "labels": torch.tensor([label for label, *_ in boxes], dtype=torch.int64),
        "ignored": torch.tensor(
            [bool(rest and rest[0]) for _, _, *rest in boxes], dtype=torch.bool
        ),
    }


def measured(classes, targets, *found):
    """Return a meter that has seen pictures, and its figures."""
    meter = DetectionMeter(classes)
    meter.update(Told(*found), torch.zeros(len(targets), 3, 8, 8), targets)
    return meter, meter.compute(ALONE)


class AveragePrecisionTest(unittest.TestCase):
    def test_order_of_scores(self):
        """Right, wrong, right, one missed: precision 1 to recall 1/3, 2/3 to 2/3, then 0."""
        targets = [truth((0, A), (0, B)), truth((0, C))]
        found = [(0.9, 0, A), (0.8, 0, FAR)], [(0.7, 0, C)]
        meter, figures = measured(["thing"], targets, *found)
        # Of the recalls 0, 0.01, ..., 1, 34 are up to 1/3 and 33 up to 2/3.
        expected = (34 + 33 * 2 / 3) / 101
        self.assertAlmostEqual(figures["ap50"], expected, places=5)
        self.assertAlmostEqual(meter.by_class["thing"], expected, places=5)
        curve = torch.tensor([1.0] * 34 + [2 / 3] * 33 + [0.0] * 34)
        torch.testing.assert_close(torch.tensor(meter.curves["thing"]).float(), curve)
        better = [(0.9, 0, A), (0.6, 0, FAR)], [(0.7, 0, C)]
        _, figures = measured(["thing"], targets, *better)
        self.assertAlmostEqual(figures["ap50"], 67 / 101, places=5)

    def test_a_box_is_found_once(self):
        """A second detection of the same box is a mistake."""
        targets = [truth((0, A), (0, B))]
        found = [(0.9, 0, A), (0.8, 0, A), (0.7, 0, B)]
        _, figures = measured(["thing"], targets, found)
        # Precision 1 up to recall 0.5, that is 51 of the recalls, then 2/3.
        self.assertAlmostEqual(figures["ap50"], (51 + 50 * 2 / 3) / 101, places=5)

    def test_thresholds(self):
        """An overlap of 0.62 is right at 0.5, 0.55 and 0.6, three of ten thresholds."""
        _, figures = measured(
            ["thing"], [truth((0, (0, 0, 100, 100)))], [(1.0, 0, (0, 0, 62, 100))]
        )
        self.assertAlmostEqual(figures["ap"], 0.3, places=5)
        self.assertEqual(figures["ap50"], 1)
        self.assertEqual(figures["ap75"], 0)
        _, figures = measured(
            ["thing"], [truth((0, (0, 0, 100, 100)))], [(1.0, 0, (0, 0, 50, 100))]
        )
        self.assertEqual(figures["ap50"], 1)  # at exactly the threshold it is right
        self.assertAlmostEqual(figures["ap"], 0.1, places=5)

    def test_sizes(self):
        """Found are the boxes of middle size; there is none that is large."""
        small, middle = (0, 0, 20, 20), (100, 100, 150, 150)
        targets = [truth((0, small), (0, middle))]
        _, figures = measured(["thing"], targets, [(1.0, 0, middle)])
        self.assertEqual((figures["ap_small"], figures["ap_medium"]), (0, 1))
        self.assertNotIn("ap_large", figures)

    def test_ignored(self):
        """To find an ignored box is no mistake, to miss it neither."""
        targets = [truth((0, A), (0, B, True), (0, C, True))]
        _, figures = measured(["thing"], targets, [(0.9, 0, B), (0.8, 0, A)])
        self.assertEqual(figures["ap50"], 1)
        _, figures = measured(["thing"], targets, [(0.9, 0, FAR), (0.8, 0, A)])
        self.assertAlmostEqual(figures["ap50"], 0.5, places=5)

    def test_mean_over_classes_that_are_there(self):
        """One class found, one missed, one without a box."""
        targets = [truth((0, A), (1, B))]
        meter, figures = measured(["one", "two", "three"], targets, [(0.9, 0, A)])
        self.assertAlmostEqual(figures["ap50"], 0.5, places=5)
        self.assertEqual(meter.by_class, {"one": 1, "two": 0})

    def test_nothing_found(self):
        _, figures = measured(["thing"], [truth((0, A)), truth()], [], [])
        self.assertEqual(figures["ap50"], 0)


class SignTest(unittest.TestCase):
    CLASSES = ("no_entry", "stop", "snow", "keep_right")  # other, other, danger, mandatory

    def test_read_wrong(self):
        """A sign taken for another is found; in its category if that is the same."""
        targets = [truth((0, A), (2, B), (3, C))]
        found = [(0.9, 1, A), (0.9, 3, B), (0.8, 3, (200, 0, 231, 50))]  # an IoU of 0.62
        meter, figures = measured(self.CLASSES, targets, found)
        self.assertEqual(figures["sign_ap50"], 1)
        self.assertEqual(figures["other_ap50"], 1)
        self.assertEqual(figures["danger_ap50"], 0)
        self.assertAlmostEqual(figures["mandatory_ap50"], 0.5, places=5)  # one of two is right
        self.assertAlmostEqual(figures["category_ap50"], 0.5, places=5)
        self.assertAlmostEqual(figures["ap50"], (0 + 0 + 0.5) / 3, places=5)
        self.assertNotIn("prohibitory_ap50", figures)
        self.assertEqual(set(meter.curves), {"a sign", "other", "danger", "mandatory"})

    def test_things_are_no_signs(self):
        _, figures = measured(["no_entry", "banana"], [truth((0, A))], [(0.9, 0, A)])
        self.assertNotIn("sign_ap50", figures)


class ProcessesTest(unittest.TestCase):
    def test_gathers(self):
        """Two processes' pictures count together: the same as one process's."""
        targets = [truth((0, A), (0, B)), truth((0, C))]
        found = [(0.9, 0, A), (0.8, 0, FAR)], [(0.7, 0, C)]
        parts = []
        for target, own in zip(targets, found, strict=True):
            meter = DetectionMeter(["thing"])
            meter.update(Told(own), torch.zeros(1, 3, 8, 8), [target])
            parts.append((meter.detections, meter.targets))

        class Both(Runtime):
            def gather(self, part):
                return parts

        together = meter.compute(Both(torch.device("cpu"), rank=1, world_size=2))
        self.assertEqual(together, measured(["thing"], targets, *found)[1])
        self.assertEqual(len(meter.targets), 2)
