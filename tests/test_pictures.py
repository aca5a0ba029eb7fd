"""lab/pictures.py: what a picture holds before it is drawn."""

import subprocess
import sys
import unittest

import numpy as np

from lab.pictures import longest_line, sheet, shorten
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

    def test_rows_of_a_sheet_are_about_as_long(self):
        """27 in rows of at most 8: not 8, 8, 8 and 3 with five empty places."""
        for count, columns, expected in (
            (27, 8, [7, 7, 7, 6]), (48, 8, [8] * 6), (5, 8, [5]), (17, 16, [9, 8]),
        ):  # fmt: skip
            grid = sheet(np.zeros((count, 4, 4)), [""] * count, columns)
            self.assertEqual([len(row) for row in grid.tiles], expected)

    def test_wide_grids_are_written_larger(self):
        """A page shows them smaller: what is written there stays readable."""
        images = np.zeros((16, 4, 4))
        narrow, wide = (sheet(images[:n], ["frame 3"] * n, n, side=1.0) for n in (4, 16))
        self.assertEqual(narrow.layout().font, 9)
        self.assertGreater(wide.layout().font, 11)
        width, _ = wide.size  # at 900 pixels of a page, letters of 9 pixels or more
        self.assertGreater(wide.layout().font / 72 * 900 / width, 8)
        long = sheet(images, ["a caption as long as this"] * 16, 16, side=1.0)
        self.assertLess(long.layout().font, 6)  # no wider than its image

    def test_shorten(self):
        self.assertEqual(shorten("n" * 24), "n" * 24)
        self.assertEqual(shorten("n" * 25), "n" * 23 + "…")
        self.assertEqual(shorten("abcdef", 4), "abc…")
        for name, most, short in (
            ("禁止超车", 8, "禁止超车"),
            ("禁止超车", 7, "禁止超…"),
            ("超", 2, "超"),
        ):
            self.assertEqual(shorten(name, most), short)
        self.assertEqual(longest_line(["ab\n禁止", "abc"]), 4)


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
