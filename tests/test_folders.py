"""Data found from any folder; what killed processes left; the real scripts of a copied project."""

import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from contextlib import chdir
from pathlib import Path
from unittest import mock

from lab import folders
from lab.folders import PROJECT, is_alive, located, near, printable, stored, unfinished
from tests.support import environment, make_images

GONE = 2**22 + 1  # above Linux's highest process number


class TemporaryFolder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name).resolve()


class PlaceTest(TemporaryFolder):
    def test_near(self):
        """Relative inside the current folder, absolute elsewhere."""
        with chdir(self.root):
            self.assertEqual(near(self.root / "a" / "b"), Path("a/b"))
            self.assertEqual(near(self.root.parent), self.root.parent)
        self.assertEqual(folders.DATA_ROOT, PROJECT / "data")

    def test_stored_and_located(self):
        """A folder of the project is found from anywhere, even moved; others by their path."""
        project, away = self.root / "project", self.root / "away"
        for folder in (project / "data" / "own", away / "photographs"):
            folder.mkdir(parents=True)
        with mock.patch.object(folders, "PROJECT", project):
            with chdir(project):
                inside, outside = stored(Path("data/own")), stored(Path("../away/photographs"))
                self.assertEqual(located(inside), Path("data/own"))
            self.assertEqual((inside, outside), ("data/own", str(away / "photographs")))
            with chdir(away):
                self.assertEqual(located(inside), project / "data" / "own")
                self.assertEqual(located(outside), Path("photographs"))
                self.assertEqual(stored(Path("photographs")), outside)
        moved = project.rename(self.root / "moved")
        with mock.patch.object(folders, "PROJECT", moved):
            self.assertEqual(located(inside), moved / "data" / "own")

    def test_located_for_earlier_versions(self):
        """They kept a path as given: from the current folder where the project has no such one."""
        project, away = self.root / "project", self.root / "away"
        for folder in (project / "data", away / "pictures", away / "data"):
            folder.mkdir(parents=True)
        with mock.patch.object(folders, "PROJECT", project), chdir(away):
            self.assertEqual(located("pictures"), Path("pictures"))
            self.assertEqual(located("data"), project / "data")
            self.assertEqual(located("nowhere"), project / "nowhere")

    def test_printable(self):
        self.assertEqual(printable(os.fsdecode(b"a$\\\xc3\xa9\xff")), "a$\\é\\xff")


class UnfinishedTest(TemporaryFolder):
    def test_gone_in_the_end(self):
        """Whether it became the target, was left half-made, or an error came."""
        target = self.root / "set"
        with unfinished(target) as folder:
            self.assertEqual(folder, self.root / f".set-{os.getpid()}")
            folder.mkdir()
            (folder / "half").touch()
        self.assertEqual(list(self.root.iterdir()), [])
        with self.assertRaises(OSError), unfinished(target) as folder:
            folder.mkdir()
            raise OSError
        with unfinished(target) as folder:
            folder.mkdir()
            folder.rename(target)
        self.assertEqual(list(self.root.iterdir()), [target])

    def test_what_killed_processes_left(self):
        """Only the same target's, only of processes that are gone."""
        kept = [f".set-{os.getppid()}", ".set-", ".set-backup", ".set-12a", f".other-{GONE}"]
        for name in (*kept, f".set-{GONE}", f".set-{10**30}"):
            (self.root / name / "inner").mkdir(parents=True)
        with unfinished(self.root / "set"):
            self.assertEqual(sorted(path.name for path in self.root.iterdir()), sorted(kept))
        (self.root / f".x[1]-{GONE}").mkdir()
        with unfinished(self.root / "x[1]"):
            self.assertEqual(len(list(self.root.iterdir())), len(kept))

    def test_is_alive(self):
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
        )
        self.assertTrue(is_alive(process.pid))
        process.communicate()
        self.assertFalse(is_alive(process.pid))
        self.assertFalse(is_alive(os.getpid()))
        with mock.patch.object(os, "kill", side_effect=PermissionError):
            self.assertTrue(is_alive(1))


class AnyFolderTest(TemporaryFolder):
    def test_trained_and_tested_from_anywhere(self):
        """A run's data is found whatever folder the scripts are started in; nothing is drawn."""
        project, away = self.root / "project", self.root / "away"
        ignored = ("data", "checkpoints", "visualized", "tests", "docs", "__pycache__", ".*")
        shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns(*ignored))
        make_images(project / "data", {"train": 8, "val": 3, "test": 3})
        away.mkdir()
        run = away / "run"

        def start(name: str, *arguments: object) -> str:
            command = [sys.executable, project / name, "--ckpt_path", run, *arguments]
            done = subprocess.run(
                command, cwd=away, env=environment(), capture_output=True, text=True, timeout=300
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            return done.stdout

        self.assertIn(f"of 3 classes from {project / 'data'} ", start("train.py", "--epoch", "1"))
        self.assertIn("of 9)", start("test.py", "--epoch", "1"))
        self.assertEqual(list(away.iterdir()), [run])
        made = {path.name for path in (project / "data").iterdir()}
        self.assertEqual(made - {".cache"}, {"train", "val", "test"})


if __name__ == "__main__":
    unittest.main()
