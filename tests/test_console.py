"""What scripts write to a terminal, whatever its letters."""

import io
import os
import sys
import unittest
from contextlib import redirect_stderr
from unittest import mock

import torch

from lab.console import counted, launch, letters_in, may_go_on, padded, run, say


class WordsTest(unittest.TestCase):
    def test_counted(self):
        """One is not plural."""
        for count, things, said in (
            (1, "steps", "1 step"), (0, "steps", "0 steps"), (1200, "steps", "1,200 steps"),
            (1, "boxes", "1 box"), (1, "classes", "1 class"), (1, "pictures", "1 picture"),
        ):  # fmt: skip
            self.assertEqual(counted(count, things), said)


class LaunchTest(unittest.TestCase):
    def test_a_launch_is_told_from_others(self):
        """By its name; one on one machine that has none by who started it; alone by nothing."""
        for given, expected in (
            ({}, None),
            ({"TORCHELASTIC_RUN_ID": "signs1", "GROUP_WORLD_SIZE": "2"}, "signs1"),
            ({"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "2"}, None),
        ):
            with mock.patch.dict(os.environ, given, clear=True):
                self.assertEqual(launch(), expected)
        whole = {"TORCHELASTIC_RUN_ID": "none", "GROUP_WORLD_SIZE": "1"}
        with mock.patch.dict(os.environ, whole, clear=True):
            self.assertTrue(launch().endswith(f"-{os.getppid()}"))
            self.assertFalse(may_go_on())  # torchrun's number may be that of an earlier one
        for given in (whole | {"TORCHELASTIC_RESTART_COUNT": "1"}, {"TORCHELASTIC_RUN_ID": "a"}):
            with mock.patch.dict(os.environ, given, clear=True):
                self.assertTrue(may_go_on())


class SayTest(unittest.TestCase):
    def test_letters_a_terminal_does_not_have(self):
        """Names that are no UTF-8, or that its encoding lacks, are escaped; the rest stays."""
        for encoding, said in (
            ("utf-8", "é 标 \\udcff".encode()),
            ("latin-1", b"\xe9 \\u6807 \\udcff"),
            ("ascii", b"\\xe9 \\u6807 \\udcff"),
        ):
            raw = io.BytesIO()
            with mock.patch.object(sys, "stdout", io.TextIOWrapper(raw, encoding)):
                run(lambda: say("é 标 \udcff"))
                self.assertEqual(raw.getvalue(), said + b"\n")


class WidthTest(unittest.TestCase):
    def test_columns_stand_below_each_other(self):
        """Chinese letters, and full-width ones, take two places of a terminal."""
        for name, letters in (("stop", 4), ("停车", 4), ("é停！", 5), ("", 0)):
            self.assertEqual(letters_in(name), letters)
            self.assertEqual(letters_in(padded(name, 6)), 6)


class EndTest(unittest.TestCase):
    def end(self, error: Exception) -> tuple[int | str | None, str]:
        """Return the exit code of a script that ends in an error, and what it says."""

        def main():
            raise error

        with redirect_stderr(io.StringIO()) as said, self.assertRaises(SystemExit) as ended:
            run(main)
        return ended.exception.code, said.getvalue()

    def test_a_full_gpu(self):
        """One line, of CUDA's memory and of Apple's; other errors of torch stay as they are."""
        for error in (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee"),
            RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB)"),
        ):
            code, said = self.end(error)
            self.assertEqual((code, said.count("\n")), (1, 1), said)
            self.assertIn("error: the GPU's memory is full", said)
        with self.assertRaisesRegex(RuntimeError, "shapes"):
            self.end(RuntimeError("shapes cannot be multiplied"))


if __name__ == "__main__":
    unittest.main()
