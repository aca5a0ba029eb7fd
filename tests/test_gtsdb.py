"""The benchmark of signs in street photographs, laid out for detection, from a small copy."""

import os
import unittest
from unittest import mock

import numpy as np
from PIL import Image

from published import gtsdb
from tasks import annotated
from tests.support import ScriptCase, script_here
from tests.test_detection_data import FolderCase, picture
from world.faces import FACES


class GtsdbTest(FolderCase, ScriptCase):
    SIGNS = "00001.jpg;10;20;50.5;60;14\n00003.ppm;0;0;30;30;0\n\n00003.ppm;50;0;80;30;42\n"

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.multiple(gtsdb, COUNT=4, TRAIN=2, TESTS=2))
        self.source = self.root / "source"
        for k, ending in enumerate(("jpg", "jpg", "ppm", "ppm")):
            picture(self.source / f"{k:05d}.{ending}", seed=k)
        (self.source / "gt.txt").write_text(self.SIGNS)

    def prepare(self, *flags):
        where = ("--root", self.root, "--data_root", self.source)
        return script_here("datasets.py", "gtsdb", *where, *flags)

    def test_lays_out(self):
        done = self.prepare()
        self.assertEqual(done.returncode, 0, done.stderr)
        test, said = self.read("gtsdb", "test", root=self.root / "gtsdb")
        self.assertEqual([path.name for path in test.paths], ["00002.ppm", "00003.ppm"])
        self.assertEqual(test.boxes[1].tolist(), [[0, 0, 30, 30], [50, 0, 80, 30]])
        names = [test.classes[label] for label in test.labels[1]]
        self.assertEqual(names, ["speed_limit_20", "end_of_no_overtaking_by_trucks"])
        self.assertEqual((said, test.classes), ("", tuple(FACES)))
        with mock.patch.object(
            annotated, "find_listing", lambda read, r, m, v: (read(r, m), False)
        ):
            train, _ = self.read("gtsdb", root=self.root / "gtsdb")
        self.assertEqual(train.boxes[1].tolist(), [[10, 20, 50.5, 60]])
        self.assert_refused(self.prepare(), 1, "exists already")
        self.assertEqual(self.prepare("--all_test").returncode, 0)
        every, _ = self.read("gtsdb", "test", root=self.root / "gtsdb_all")
        self.assertEqual(len(every.paths), 4)
        self.assertIn("gtsdb_all", self.prepare("--all_test").stderr)

    def names(self, split):
        """Return the names of the photographs in a split, none where there is no such split."""
        folder = self.root / "gtsdb" / split
        return sorted(path.name for path in folder.glob("[0-9]*")) if folder.is_dir() else []

    def test_the_test_part(self):
        """All of it is for testing; rows of other photographs are counted."""
        for k in range(4):
            (self.source / f"{k:05d}.{('jpg', 'ppm')[k > 1]}").unlink()
        for k in (4, 5):
            picture(self.source / f"{k:05d}.ppm", seed=k)
        (self.source / "gt.txt").write_text(self.SIGNS + "00005.ppm;10;10;40;40;17\n")
        done = self.prepare()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(
            (self.names("train"), self.names("test")), ([], ["00004.ppm", "00005.ppm"])
        )
        self.assertIn("has signs of 2 photographs that are not there: 00001, 00003", done.stdout)
        self.assertIn("all of them are for testing", done.stdout)
        self.assertIn("Test on it", done.stdout)
        test, _ = self.read("gtsdb", "test", root=self.root / "gtsdb")
        self.assertEqual(test.boxes[1].tolist(), [[10, 10, 40, 40]])

    def test_both_parts(self):
        """The benchmark's own split: its training part to train on, its test part to test on."""
        for k in (4, 5):
            picture(self.source / f"{k:05d}.ppm", seed=k)
        done = self.prepare()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(self.names("train")), 4)
        self.assertEqual(self.names("test"), ["00004.ppm", "00005.ppm"])

    def test_another_selection(self):
        """One photograph less than the training part: all to test on, and the missing one named."""
        (self.source / "00002.ppm").unlink()
        done = self.prepare()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((len(self.names("train")), len(self.names("test"))), (0, 3))
        self.assertIn("00002 is not there", done.stdout)

    def test_cuts_signs_out(self):
        """With GTSRB's margin, into a folder of each class; tiny ones are left out."""
        (self.source / "gt.txt").write_text(self.SIGNS + "00002.ppm;0;0;19;19.9;1\n")
        done = self.prepare("--crops")
        self.assertEqual(done.returncode, 0, done.stderr)
        cut = (self.root / "gtsdb_signs").rglob("*.png")
        sizes = {f"{path.parent.name}/{path.name}": Image.open(path).size for path in cut}
        expected = {
            "14_stop/00001_0.png": (51, 50),
            "00_speed_limit_20/00003_0.png": (40, 40),
            "42_end_of_no_overtaking_by_trucks/00003_1.png": (40, 40),
        }
        self.assertEqual(sizes, expected)
        seen = np.asarray(Image.open(self.root / "gtsdb_signs/test/14_stop/00001_0.png"))
        whole = np.asarray(Image.open(self.source / "00001.jpg"))
        np.testing.assert_array_equal(seen, whole[15:65, 5:56])
        self.assert_refused(self.prepare("--crops"), 1, "exists already")
        self.assert_refused(self.prepare("--crops", "--all_test"), 2, "not allowed with")
        (self.source / "gt.txt").write_text("00002.ppm;0;0;19;19.9;1\n")
        (self.root / "gtsdb_signs").rename(self.root / "first")
        self.assert_refused(self.prepare("--crops"), 1, "no sign of 20 pixels or more")

    def test_a_table_from_windows(self):
        """A byte order mark, CRLF, spaces; swapped corners are put right and counted."""
        text = self.SIGNS.replace("0;0;30;30", "30; 0;0;30").replace("\n", "\r\n")
        (self.source / "gt.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
        done = self.prepare()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("1 lines with swapped corners, put right (line 2)", done.stdout)
        test, said = self.read("gtsdb", "test", root=self.root / "gtsdb")
        self.assertEqual((test.boxes[1].tolist()[0], said), ([0, 0, 30, 30], ""))
        (self.root / "gtsdb").rename(self.root / "first")
        train, _ = self.read("gtsdb", "train", root=self.root / "first", val_share=0.5)
        self.assertIn([[10, 20, 50.5, 60]], [boxes.tolist() for boxes in train.boxes])

    def test_bad_files(self):
        for line in ("00001.jpg;10;20;50;60", "00001.jpg;10;20;50;x;3"):
            (self.source / "gt.txt").write_text(f"{self.SIGNS}{line}\n")
            self.assert_refused(self.prepare(), 1, "line 4", repr(line), "is not file;left")
        for label in (43, -1):
            (self.source / "gt.txt").write_text(f"{self.SIGNS}00001.jpg;1;2;3;4;{label}\n")
            self.assert_refused(self.prepare(), 1, "line 4", f"is of class {label}", "0 to 42")
        (self.source / "gt.txt").unlink()
        self.assert_refused(self.prepare(), 1, "cannot read", "gt.txt")
        (self.source / "gt.txt").write_text("00007.jpg;1;2;3;4;5\n")
        self.assert_refused(self.prepare(), 1, "no sign of any photograph")
        (self.source / "gt.txt").write_text(self.SIGNS)
        (self.source / "00002.ppm").write_bytes(b"P6")
        self.assert_refused(self.prepare(), 1, "00002.ppm")
        self.assertEqual(os.listdir(self.root), ["source"])


if __name__ == "__main__":
    unittest.main()
