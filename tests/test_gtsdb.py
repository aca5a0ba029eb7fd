"""The benchmark of signs in street photographs, laid out for detection, from a small copy."""

import os
import unittest
from unittest import mock

from published import gtsdb
from tasks import annotated
from tests.support import ScriptCase, script_here
from tests.test_detection_data import FolderCase, picture
from world.faces import FACES


class GtsdbTest(FolderCase, ScriptCase):
    SIGNS = "00001.jpg;10;20;50.5;60;14\n00003.ppm;0;0;30;30;0\n\n00003.ppm;50;0;80;30;42\n"

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.multiple(gtsdb, COUNT=4, TRAIN=2))
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

    def test_bad_files(self):
        for line in ("00001.jpg;10;20;50;60", "00001.jpg;10;20;50;x;3", "00001.jpg;1;2;3;4;43"):
            (self.source / "gt.txt").write_text(f"{self.SIGNS}{line}\n")
            self.assert_refused(self.prepare(), 1, "line 4", repr(line))
        (self.source / "gt.txt").unlink()
        self.assert_refused(self.prepare(), 1, "cannot read", "gt.txt")
        (self.source / "gt.txt").write_text(self.SIGNS)
        (self.source / "00002.ppm").write_bytes(b"P6")
        self.assert_refused(self.prepare(), 1, "00002.ppm")
        (self.source / "00002.ppm").unlink()
        self.assert_refused(self.prepare(), 1, "lacks photograph 00002")
        self.assertEqual(os.listdir(self.root), ["source"])


if __name__ == "__main__":
    unittest.main()
