"""lab/pictures.py: what a picture holds before it is drawn."""

import subprocess
import sys
import unittest

import numpy as np

from lab.pictures import sheet, shorten
from tests.support import PROJECT


class PictureTest(unittest.TestCase):
    def test_a_sheet_is_filled_row_by_row(self):
        pixels = np.random.default_rng(0).random((7, 4, 4, 3))
        grid = sheet(pixels, "abcdefg", 3, title="seven")
        self.assertEqual([len(row) for row in grid.tiles], [3, 3, 1])
        self.assertEqual("".join(tile.caption for row in grid.tiles for tile in row), "abcdefg")
        for tile, image in zip([t for row in grid.tiles for t in row], pixels, strict=True):
            self.assertIs(tile.image.base, pixels)
            np.testing.assert_array_equal(tile.image, image)

    def test_shorten(self):
        self.assertEqual(shorten("n" * 24), "n" * 24)
        self.assertEqual(shorten("n" * 25), "n" * 23 + "…")
        self.assertEqual(shorten("abcdef", 4), "abc…")


class ImportTest(unittest.TestCase):
    def test_training_needs_no_matplotlib_until_it_draws(self):
        code = (
            "import sys, lab.pictures, lab.engine, lab.run\n"
            "assert not [name for name in sys.modules if name.startswith('matplotlib')]"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
