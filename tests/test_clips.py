"""Drawn clips: what they show, that nothing else tells the class, the same bytes however drawn."""

import tempfile
import unittest
from collections import Counter
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from scipy.stats import ks_2samp, kstest
from sklearn.ensemble import RandomForestClassifier

from world import clips
from world.camera import worn
from world.clips import (
    KINDS,
    MOTIONS,
    PAIR,
    PLACES,
    RADII,
    SLOT,
    TOLD_APART,
    Pose,
    clips_of,
    draw_clip,
    memory,
    motion,
    order,
    placed,
    read_dataset,
)
from world.faces import draw_face

FRAMES = 16
LIMIT = 0.07  # Kolmogorov-Smirnov's distance of 2,000 samples: by chance once in 20,000 cases
NAMES = tuple(MOTIONS)


def poses(label: int, count: int = 2000) -> dict[str, np.ndarray]:
    """Return what a class of `motion` does in many clips, (count, FRAMES) of each value."""
    rng = np.random.default_rng(label)
    told = [motion(label, rng, FRAMES)[2] for _ in range(count)]
    return {name: np.stack(values) for name, *values in zip(Pose._fields, *told, strict=True)}


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples."""
    return ks_2samp(first, second, method="asymp").statistic


def still(x=16.0, y=16.0, size=9.0, angle=0.0, lamp=1.0, frames=FRAMES) -> Pose:
    return Pose(*(np.full(frames, value) for value in (x, y, size, angle, lamp)))


class TestMotion(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.poses = {name: poses(label) for label, name in enumerate(NAMES)}

    def test_classes_do_what_they_are_called(self):
        """The sign of each change, but for the one jump to the other end of a range."""
        ways = {"left": ("x", -1), "right": ("x", 1), "up": ("y", -1), "down": ("y", 1),
                "nearer": ("size", 1), "farther": ("size", -1),
                "turning_clockwise": ("angle", 1),
                "turning_counter_clockwise": ("angle", -1)}  # fmt: skip
        for name, told in self.poses.items():
            for field, values in told.items():
                steps = np.diff(values, axis=1)
                if field == "lamp" and name == "blinking":
                    self.assertTrue(((steps != 0).sum(1) >= 3).all())
                elif name in ways and ways[name][0] == field:
                    along = np.sign(steps) == ways[name][1]
                    self.assertTrue((along.sum(1) >= FRAMES - 2).all(), name)
                else:
                    self.assertFalse(steps.any(), (name, field))

    def test_a_moment_is_the_same_in_all_classes(self):
        """Each value, at each moment, as of a sign that stands still."""
        every = self.poses["still"]
        for name, told in self.poses.items():
            for field in Pose._fields:
                for t in (0, 5, FRAMES // 2, FRAMES - 1):
                    self.assertLess(
                        distance(told[field][:, t], every[field][:, t]), LIMIT, (name, field, t)
                    )

    def test_values_of_a_moment_are_independent(self):
        for name, told in self.poses.items():
            for t in (0, FRAMES - 1):
                values = np.stack([told[field][:, t] for field in Pose._fields])
                apart = np.corrcoef(values) - np.eye(5)
                self.assertLess(np.abs(apart).max(), 0.1, name)

    def test_ranges(self):
        told = self.poses["still"]
        for field, (low, high) in {"x": PLACES, "y": PLACES, "angle": (0, 2 * np.pi)}.items():
            uniform = kstest(told[field][:, 0], "uniform", (low, high - low))
            self.assertLess(uniform.statistic, LIMIT, field)
        self.assertGreaterEqual(told["size"].min(), RADII[0])
        self.assertLessEqual(told["size"].max(), RADII[1])

    def test_a_frame_depends_on_its_moment_alone(self):
        """It is that of a sign which stands there: no blur along the way, no trace of before."""
        rng = np.random.default_rng(5)
        for label in range(1, len(NAMES)):
            faces, which, pose = motion(label, rng, FRAMES)
            moving = self.drawn(faces, which, pose)
            for t in (3, 11):
                there = Pose(*(np.full(FRAMES, values[t]) for values in pose))
                self.assertTrue((self.drawn(faces, which, there)[t] == moving[t]).all())

    @staticmethod
    def drawn(faces, which, pose) -> np.ndarray:
        told = KINDS["motion"]._replace(story=lambda label, rng, frames: (faces, which, pose))
        with mock.patch.dict(KINDS, motion=told):
            return draw_clip("motion", 0, np.random.default_rng(1), FRAMES)

    def test_no_classifier_of_single_frames(self):
        """One that is told all that a frame can depend on is no better than chance."""
        for t in (0, FRAMES // 2):
            shown = np.concatenate(
                [np.stack([told[field][:, t] for field in Pose._fields], 1)
                 for told in self.poses.values()]
            )  # fmt: skip
            labels = np.repeat(np.arange(len(NAMES)), len(shown) // len(NAMES))
            model = RandomForestClassifier(30, max_depth=10, random_state=0)
            model.fit(shown[::2], labels[::2])
            self.assertLess(model.score(shown[1::2], labels[1::2]), 0.115)


class TestOrder(unittest.TestCase):
    def test_the_classes_differ_in_order_alone(self):
        """From one stream, both tell the same story, with the two faces exchanged."""
        for seed in range(20):
            first, second = (order(k, np.random.default_rng(seed), FRAMES) for k in range(2))
            self.assertEqual(first[0], list(PAIR))
            self.assertEqual(second[0], list(PAIR[::-1]))
            self.assertTrue((first[1] == second[1]).all())
            self.assertTrue(all(map(np.array_equal, first[2], second[2])))

    def test_one_after_the_other(self):
        rng = np.random.default_rng(0)
        for _ in range(200):
            which = order(0, rng, FRAMES)[1]
            shown = which[which >= 0]
            self.assertTrue((np.diff(shown) >= 0).all())
            self.assertTrue((np.bincount(shown) >= 3).all())

    def test_first_and_second_are_alike(self):
        """For how long, where and how large: else the frames' mean would tell which was first."""
        rng = np.random.default_rng(0)
        told = [order(0, rng, FRAMES) for _ in range(2000)]
        lengths = np.array([np.bincount(which[which >= 0]) for _, which, _ in told])
        self.assertLess(distance(*lengths.T), LIMIT)
        for field in ("x", "y", "size", "angle"):
            values = [
                [getattr(pose, field)[which == k][0] for _, which, pose in told] for k in range(2)
            ]
            self.assertLess(distance(*values), LIMIT, field)
            self.assertLess(abs(np.corrcoef(values)[0, 1]), 0.1)


class TestMemory(unittest.TestCase):
    def test_the_first_sign_is_the_class(self):
        rng = np.random.default_rng(0)
        for frames in (16, 32, 64):
            for label in range(10):
                faces, which, _ = memory(label, rng, frames)
                self.assertEqual(faces[0], TOLD_APART[label])
                self.assertEqual(which[: SLOT + 1].tolist(), [0] * SLOT + [1])
                self.assertEqual((len(which), len(faces)), (frames, frames // SLOT))

    def test_later_signs_say_nothing(self):
        """All are equally likely, whatever came first."""
        rng = np.random.default_rng(0)
        for label in (0, 7):
            later = Counter(face for _ in range(400) for face in memory(label, rng, 32)[0][1:])
            for name in TOLD_APART:
                self.assertAlmostEqual(later[name] / 2800, 0.1, delta=0.025)


class TestCamera(unittest.TestCase):
    def test_where_a_plate_lies(self):
        """In the middle that is asked for, of that radius; turned clockwise by the angle."""
        plate = worn(np.random.default_rng(0), draw_face("no_entry", clips.FACE))
        scale = clips.SCENE / clips.PIXELS
        for x, y, size in ((16, 16, 10), (10, 20, 7)):
            alpha = placed(plate, x, y, size, 0.7)[..., 3] > 127
            rows, columns = np.nonzero(alpha)
            self.assertAlmostEqual((columns.mean() + 0.5) / scale, x, delta=0.15)
            self.assertAlmostEqual((rows.mean() + 0.5) / scale, y, delta=0.15)
            self.assertAlmostEqual(np.sqrt(alpha.sum() / np.pi) / scale, size, delta=0.7)
        upright = placed(plate, 16, 16, 12, 0.0)
        turned = placed(plate, 16, 16, 12, np.pi / 2)
        expected = np.asarray(Image.fromarray(upright).rotate(-90))  # PIL's is against the clock
        self.assertLess(np.abs(expected.astype(int) - turned).mean(), 1.0)

    def test_a_lamp_that_is_off(self):
        with mock.patch.dict(KINDS):
            for lamp in (1.0, 0.25):
                story = (["no_entry"], np.zeros(FRAMES, int), still(lamp=lamp))
                KINDS[str(lamp)] = KINDS["motion"]._replace(story=lambda *_, story=story: story)
            bright, dim = (draw_clip(k, 0, np.random.default_rng(3)) for k in ("1.0", "0.25"))
        middle = (slice(None), slice(12, 20), slice(12, 20))
        self.assertLess(dim[middle].mean(), 0.7 * bright[middle].mean())
        corner = (slice(None), slice(0, 4), slice(0, 4))
        self.assertLess(abs(dim[corner].mean() - bright[corner].mean()), 1.0)

    def test_every_frame_has_grain_of_its_own(self):
        clip = draw_clip("motion", NAMES.index("still"), np.random.default_rng(0)).astype(int)
        difference = np.abs(np.diff(clip, axis=0))
        self.assertGreater(difference.mean(), 0.3)
        self.assertLess(difference.mean(), 5)


class TestDataset(unittest.TestCase):
    def test_the_same_bytes_however_drawn(self):
        counts = {"train": 60, "test": 5}
        with tempfile.TemporaryDirectory() as base:
            folders = [Path(base) / str(workers) for workers in (1, 2)]
            for workers, folder in enumerate(folders, 1):
                clips_of("memory", 8)(folder, splits=counts, workers=workers)
            for split, count in counts.items():
                once, again = (read_dataset(folder, split) for folder in folders)
                self.assertEqual(once[0].shape, (count, 8, 32, 32, 3))
                self.assertEqual(once[1].tolist(), [k % 10 for k in range(count)])
                for one, other in zip(once, again, strict=True):
                    self.assertTrue((one == other).all())
            index = 57  # of the second chunk
            stream = np.random.SeedSequence((0, tuple(KINDS).index("memory"), 8, 0, index))
            clip = draw_clip("memory", index % 10, np.random.default_rng(stream), 8)
            self.assertTrue((read_dataset(folders[0], "train")[0][index] == clip).all())

            with self.assertRaises(FileExistsError):
                clips_of("memory", 8)(folders[0], splits=counts, workers=1)

    def test_splits_share_no_clip(self):
        counts = {"train": 3, "val": 3}
        with tempfile.TemporaryDirectory() as base:
            clips_of("motion", 8)(Path(base), splits=counts, workers=1)
            train, val = (read_dataset(Path(base), split)[0] for split in counts)
        self.assertFalse((train == val).all((1, 2, 3, 4)).any())


if __name__ == "__main__":
    unittest.main()
