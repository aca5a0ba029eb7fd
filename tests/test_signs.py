"""What the drawn signs promise: photographs in all light, the same bytes, no half-made data set."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import numpy as np

from tests.support import PROJECT
from world import signs

LABELS = range(len(signs.CLASSES))
# Mean grey levels of photographs drawn one after the other, one a class.
MEANS = (
    144.1,
    64.3,
    62.0,
    90.9,
    91.2,
    50.2,
    90.8,
    114.6,
    52.6,
    134.7,
    114.1,
    24.2,
    81.8,
    43.2,
    34.9,
    52.1,
    66.1,
    110.6,
    197.9,
    156.1,
    59.1,
    55.7,
    131.0,
    71.7,
    142.9,
    81.1,
)


def digests(root: Path) -> dict[str, str]:
    """Path inside root -> hash of the file's bytes."""
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


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

    def test_photographs_stay_as_they_are(self):
        """A changed draw of numbers changes all figures in the README; grey levels tell it."""
        rng = np.random.default_rng(0)
        photos = [signs.draw_sign(label, rng) for label in LABELS]
        means = [round(float(np.asarray(photo).mean()), 1) for photo in photos]
        np.testing.assert_allclose(means, MEANS, atol=0.5)

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
        code = f"import sys; from world import signs, street; sys.exit({heavy})"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode, 0)


if __name__ == "__main__":
    unittest.main()
