"""What the drawn signs promise: the right faces, the same bytes, and no half-made data set."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tests.support import PROJECT
from world import signs

LABELS = range(len(signs.CLASSES))
LABEL = {name.split("_", 1)[1]: label for label, name in enumerate(signs.CLASSES)}


def on_grey(face: Image.Image) -> np.ndarray:
    """(H, W, 3) float face over mid grey."""
    ground = Image.new("RGB", face.size, (128, 128, 128))
    ground.paste(face, (0, 0), face)
    return np.asarray(ground, float)


def digests(root: Path) -> dict[str, str]:
    """Path inside root -> hash of the file's bytes."""
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


class Faces(unittest.TestCase):
    def mean_colour(self, name: str, variant: int, radii: tuple[float, float]) -> np.ndarray:
        face = np.asarray(signs.draw_face(LABEL[name], 96, variant), float)
        y, x = np.mgrid[-1:1:96j, -1:1:96j]
        distance = np.hypot(x, y)
        ring = (radii[0] < distance) & (distance < radii[1])
        return face[ring].mean(0)

    def test_size_mode_and_transparent_corners(self):
        for label in LABELS:
            for variant in range(signs.num_variants(label)):
                face = signs.draw_face(label, 48, variant)
                self.assertEqual((face.mode, face.size), ("RGBA", (48, 48)))
                alpha = np.asarray(face)[..., 3]
                corners = alpha[[0, 0, -1, -1], [0, -1, 0, -1]]
                if not signs.CLASSES[label].endswith("give_way"):
                    self.assertEqual(corners.tolist(), [0, 0, 0, 0])
                self.assertEqual(alpha[24, 24], 255)

    def test_rings_have_their_colour(self):
        for name in ("stop", "no_entry", "no_vehicles", "no_overtaking", "speed_limit_30"):
            for variant in range(signs.num_variants(LABEL[name])):
                red, green, blue, _ = self.mean_colour(name, variant, (0.82, 0.88))
                self.assertGreater(red, 150, name)
                self.assertLess(max(green, blue), 60, name)
        for name in ("turn_right", "ahead_only", "keep_right", "roundabout"):
            red, _, blue, _ = self.mean_colour(name, 0, (0.84, 0.9))
            self.assertGreater(blue, red + 100, name)
        red, green, blue, _ = self.mean_colour("priority_road", 0, (0, 0.25))
        self.assertGreater(min(red, green), blue + 100)

    def test_left_is_the_mirror_of_right(self):
        for left, right in (("turn_left", "turn_right"), ("curve_left", "curve_right")):
            for variant in range(signs.num_variants(LABEL[left])):
                mirror = ImageOps.mirror(signs.draw_face(LABEL[left], 96, variant))
                face = signs.draw_face(LABEL[right], 96, variant)
                difference = np.abs(on_grey(mirror) - on_grey(face)).mean()
                self.assertLess(difference, 2.0, (left, variant))
                unlike = np.abs(on_grey(ImageOps.mirror(face)) - on_grey(face)).mean()
                self.assertGreater(unlike, 4 * difference, (left, variant))

    def test_red_car_on_the_left_black_on_the_right(self):
        face = on_grey(signs.draw_face(LABEL["no_overtaking"], 96))
        left, right = face[50, 32], face[50, 64]
        self.assertGreater(left[0], left[1] + 100)
        self.assertLess(right.max(), 60)

    def test_roundabout_is_a_third_of_a_turn_symmetric_and_has_a_direction(self):
        face = signs.draw_face(LABEL["roundabout"], 96)
        third = np.abs(on_grey(face.rotate(120, Image.Resampling.BICUBIC)) - on_grey(face)).mean()
        mirror = np.abs(on_grey(ImageOps.mirror(face)) - on_grey(face)).mean()
        self.assertLess(third, 8)
        self.assertGreater(mirror, 2 * third)

    def test_every_limit_differs_from_every_other(self):
        limits = [on_grey(signs.draw_face(label, 64)) for label in range(8)]
        for (a, first), (b, second) in combinations(enumerate(limits), 2):
            self.assertGreater(np.abs(first - second).mean(), 3, (a, b))

    def test_nearest_face_names_every_class(self):
        faces = {
            (label, variant): np.asarray(on_grey(signs.draw_face(label, 32, variant))).ravel()
            for label in LABELS
            for variant in range(signs.num_variants(label))
        }
        keys, bank = list(faces), np.stack(list(faces.values()))
        for label in LABELS:
            face = signs.draw_face(label, 96, signs.num_variants(label) - 1)
            for degrees, shift in ((2, (2, 0)), (-2, (0, -2))):
                warped = face.rotate(degrees, Image.Resampling.BICUBIC, translate=shift)
                probe = on_grey(warped.resize((32, 32), Image.Resampling.BOX)).ravel()
                nearest = np.abs(bank - probe).sum(1).argmin()
                self.assertEqual(keys[nearest][0], label)

    def test_unknown_variant_and_glyph_are_refused(self):
        with self.assertRaisesRegex(ValueError, "variant 99"):
            signs.draw_face(0, 32, 99)
        with self.assertRaisesRegex(ValueError, "'X'"):
            signs.glyph("X", 1, 1)


class Photographs(unittest.TestCase):
    def test_size_mode_and_light(self):
        means, greens = [], 0
        for label in LABELS:
            for index in range(12):
                photo = signs.draw_sign(label, np.random.default_rng((label, index)))
                self.assertEqual(photo.mode, "RGB")
                self.assertTrue(min(photo.size) >= 25 and max(photo.size) <= 64, photo.size)
                means.append(np.asarray(photo).mean() / 255)
                if label < 9:  # red plates: a fifth is seen green
                    r, g, b = np.asarray(photo, float).mean((0, 1))
                    greens += g > r + 3 and g > b + 3
        dark, middle, bright = np.percentile(means, (5, 50, 95))
        self.assertTrue(0.02 < dark < 0.15 and 0.2 < middle < 0.5 and bright > 0.6, means)
        self.assertTrue(5 < greens < 40, greens)

    def test_one_stream_one_photograph(self):
        first, again, other = (signs.draw_sign(3, np.random.default_rng(s)) for s in (5, 5, 6))
        self.assertEqual(first.tobytes(), again.tobytes())
        self.assertNotEqual(first.tobytes(), other.tobytes())


class DataSets(unittest.TestCase):
    SMALL = {"train": 3, "val": 2, "test": 1}

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)

    def test_same_seed_same_bytes_whatever_the_workers(self):
        steps = []
        signs.draw_dataset(self.root / "a", 0, self.SMALL, workers=1, progress=steps.append)
        signs.draw_dataset(self.root / "b", 0, self.SMALL, workers=2)
        signs.draw_dataset(self.root / "c", 1, self.SMALL, workers=1)
        a, b, c = (digests(self.root / name) for name in "abc")
        self.assertEqual(a, b)
        self.assertEqual(a.keys(), c.keys())
        self.assertFalse(set(a.values()) & set(c.values()))
        self.assertEqual(len(set(a.values())), len(a), "two images, or two splits, share content")
        self.assertEqual(sum(steps), len(a))
        self.assertEqual(sorted(p.name for p in (self.root / "a").iterdir()), sorted(self.SMALL))
        for split, count in self.SMALL.items():
            folders = sorted((self.root / "a" / split).iterdir())
            self.assertEqual([folder.name for folder in folders], list(signs.CLASSES))
            for folder in folders:
                names = sorted(file.name for file in folder.iterdir())
                self.assertEqual(names, [f"{index:05d}.jpg" for index in range(count)])

    def test_refuses_to_overwrite(self):
        keep = self.root / "val" / "mine.txt"
        keep.parent.mkdir()
        keep.write_text("kept")
        with self.assertRaisesRegex(FileExistsError, "val"):
            signs.draw_dataset(self.root, 0, self.SMALL, workers=1)
        self.assertEqual([p.name for p in self.root.iterdir()], ["val"])
        self.assertEqual(keep.read_text(), "kept")

    def test_an_error_leaves_nothing(self):
        def fail(done: int) -> None:
            raise InterruptedError("stop here")

        with self.assertRaises(InterruptedError):
            signs.draw_dataset(self.root, 0, self.SMALL, workers=1, progress=fail)
        self.assertEqual(list(self.root.iterdir()), [])

    @unittest.skipIf(os.name == "nt", "needs SIGKILL")
    def test_a_kill_leaves_no_train_folder_and_the_next_run_cleans_up(self):
        script = self.root / "draw.py"
        script.write_text(
            "import sys; from pathlib import Path; from world import signs\n"
            "if __name__ == '__main__':\n"
            "    signs.draw_dataset(Path(sys.argv[1]), 0, {'val': 9, 'train': 900}, 2, print)\n"
        )
        root = self.root / "signs"
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-u", str(script), str(root)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        ) as process:
            process.stdout.readline()  # the first chunk is done, a thousand are not
            process.send_signal(signal.SIGKILL)
        leftover = list(root.iterdir())
        self.assertEqual([p.name for p in leftover], [f".drawing-{process.pid}"])

        # Workers end with their parent: nothing is written any more.
        deadline, before = time.monotonic() + 5, None
        while before != (count := sum(1 for _ in leftover[0].rglob("*.jpg"))):
            self.assertLess(time.monotonic(), deadline)
            before = count
            time.sleep(0.3)

        signs.draw_dataset(root, 0, self.SMALL, workers=1)
        self.assertEqual(sorted(p.name for p in root.iterdir()), sorted(self.SMALL))


class Import(unittest.TestCase):
    def test_is_light(self):
        heavy = "'torch' in sys.modules or 'scipy' in sys.modules"
        code = f"import sys; from world import signs; sys.exit({heavy})"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode, 0)


if __name__ == "__main__":
    unittest.main()
