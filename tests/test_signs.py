"""What the drawn signs promise: photographs in all light, the same bytes, no half-made data set."""

import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from tests.support import PROJECT, script_here
from world import signs
from world.parallel import map_chunks

LABELS = range(len(signs.CLASSES))
# Mean grey levels of photographs drawn one after the other, one a class.
MEANS = (
    127.5, 82.7, 22.8, 47.9, 38.4, 28.0, 65.3, 13.1, 216.8, 84.6, 56.6, 216.4,
    110.1, 100.4, 14.6, 18.9, 126.3, 19.3, 24.6, 9.5, 38.5, 234.6, 95.2, 32.4,
    73.5, 19.7,
)  # fmt: skip


def digests(root: Path) -> dict[str, str]:
    """Path inside root -> hash of the file's bytes."""
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(root.rglob("*"))
        if file.is_file()
    }


class Photographs(unittest.TestCase):
    def test_size_mode_and_light(self):
        means = []
        for label in LABELS:
            for index in range(12):
                photo = signs.draw_sign(label, np.random.default_rng((label, index)))
                self.assertEqual(photo.mode, "RGB")
                self.assertTrue(min(photo.size) >= 25 and max(photo.size) <= 64, photo.size)
                means.append(np.asarray(photo).mean() / 255)
                if label < 9:  # red plates: none is seen green
                    red, green, blue = np.asarray(photo, float).mean((0, 1))
                    self.assertLess(green, max(red, blue) + 25, (label, index))
        dark, middle, bright = np.percentile(means, (5, 50, 95))
        self.assertTrue(0.02 < dark < 0.15 and 0.2 < middle < 0.5 and bright > 0.6, means)

    def test_what_nobody_can_read_is_taken_again(self):
        plate = signs.draw_face(signs.NAMES[5], signs.SCENE)  # a speed limit: white, black, red
        photo = np.asarray(plate.convert("RGB"))
        self.assertGreater(signs.contrast(photo, plate), 100)
        washed = np.where(photo.max(2, keepdims=True) < 80, np.uint8(238), photo)  # no digits
        for unreadable in (washed, photo // 32, np.full_like(photo, 255)):
            self.assertLess(signs.contrast(unreadable, plate), signs.LEGIBLE)
        again = 0
        for index in range(150):
            stream = (index % 26, index)
            photo = signs.draw_sign(index % 26, np.random.default_rng(stream))
            first, plate = signs.photograph(index % 26, np.random.default_rng(stream))
            if signs.contrast(np.asarray(first), plate) < signs.LEGIBLE:
                again += 1
                self.assertNotEqual(photo.tobytes(), first.tobytes())
            else:
                self.assertEqual(photo.tobytes(), first.tobytes())
        self.assertTrue(2 <= again <= 20, again)

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


def threads_of_products(chunk: int) -> set[int]:
    """How many threads each library in this process may take."""
    return {library["num_threads"] for library in threadpool_info()}


class Workers(unittest.TestCase):
    def test_do_not_fight_for_the_cores(self):
        self.assertEqual(list(map_chunks(threads_of_products, range(2), 2)), [{1}, {1}])


class Import(unittest.TestCase):
    def test_is_light(self):
        heavy = "'torch' in sys.modules or 'scipy' in sys.modules"
        code = f"import sys; from world import signs, street; sys.exit({heavy})"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], cwd=PROJECT).returncode, 0)


class AllClassesTest(unittest.TestCase):
    """The 43 classes of the benchmark, by the same camera."""

    def test_each_shows_its_own_sign(self):
        """What is drawn for a label is the face of that name; the 26 are as they were."""
        self.assertEqual(len(signs.ALL), 43)
        self.assertEqual(signs.folders_of(signs.ALL)[14], "14_stop")
        for name in ("stop", "snow", "end_of_limits"):
            label = signs.ALL.index(name)
            _, plate = signs.photograph(label, np.random.default_rng(label), signs.ALL)
            self.assertEqual(plate.size, (signs.SCENE,) * 2)
            others = {}
            for other in ("stop", "snow", "end_of_limits"):
                face = signs.draw_face(other, signs.SCENE)
                mean = np.array(plate, float)[..., :3][np.array(plate)[..., 3] > 250].mean(0)
                clean = np.array(face, float)[..., :3][np.array(face)[..., 3] > 250].mean(0)
                others[other] = np.abs(mean - clean).sum()
            self.assertEqual(min(others, key=others.get), name)

    def test_a_data_set(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            signs.draw_all(root / "a", 0, {"train": 1}, workers=2)
            names = sorted(path.name for path in (root / "a/train").iterdir())
            self.assertEqual(names, list(signs.folders_of(signs.ALL)))
            file = "train/30_snow/00000.jpg"
            again = signs.draw_sign(30, np.random.default_rng((0, 0, 30, 0)), signs.ALL)
            again.save(root / "again.jpg", quality=90)
            self.assertEqual((root / "a" / file).read_bytes(), (root / "again.jpg").read_bytes())

    def test_as_many_as_are_asked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            for classes, places in ((26, signs.CLASSES), (43, signs.folders_of(signs.ALL))):
                root, few = Path(folder, str(classes)), ("--train", 2, "--val", 1, "--test", 0)
                done = script_here(
                    "datasets.py", "signs", "--classes", classes, "--root", root, *few
                )
                self.assertEqual(done.returncode, 0, done.stderr)
                drawn = Counter(str(path.parent.relative_to(root)) for path in root.rglob("*.jpg"))
                expected = {f"train/{place}": 2 for place in places}
                self.assertEqual(drawn, expected | {f"val/{place}": 1 for place in places})


if __name__ == "__main__":
    unittest.main()
