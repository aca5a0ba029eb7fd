"""What scripts read from flags and write to a terminal, whatever its letters."""

import argparse
import io
import sys
import unittest
from unittest import mock

import numpy as np
import torch

from lab.console import run, say, seed, share


class FlagTest(unittest.TestCase):
    def test_seed(self):
        """Whole numbers that every generator takes, and no others."""
        for text in ("0", "7", str(2**63 - 1)):
            value = seed(text)
            self.assertEqual(str(value), text)
            torch.manual_seed(value)
            torch.Generator().manual_seed(value)
            np.random.default_rng([value, 1])
        for text in ("-1", "1.5", "", "x", str(2**63), "1" + "0" * 20, "9" * 5000):
            with self.assertRaisesRegex(argparse.ArgumentTypeError, "is not a whole number from 0"):
                seed(text)

    def test_share(self):
        self.assertEqual(share("0.25"), 0.25)
        for text in ("0", "1", "-0.1", "nan", "x"):
            with self.assertRaisesRegex(argparse.ArgumentTypeError, "a number between 0 and 1"):
                share(text)


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


if __name__ == "__main__":
    unittest.main()
