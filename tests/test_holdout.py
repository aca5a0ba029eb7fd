"""What is held out: groups whole, by the seed alone, and the same as ever."""

import unittest
from pathlib import Path

from lab.holdout import group_of, held_out


class HeldOutTest(unittest.TestCase):
    def indices(self, held, part=1):
        return [index for index, out in enumerate(held) if out == part]

    def test_the_same_choice_as_ever(self):
        """Runs that hold out val are compared with those of years ago."""
        labels = [0] * 12 + [1] * 9 + [2]
        groups = [*"aabbccddeeff", *"uvwxyz123", "q"]
        held = held_out(labels, groups, 0.3)
        self.assertEqual(self.indices(held), [4, 5, 6, 7, 14, 19, 20])
        self.assertEqual(self.indices(held_out([0] * 20, range(20), 0.1)), [4, 19])

    def test_parts(self):
        """Each of them has the same share, no image is in two, and some stay."""
        labels = ["b"] * 30 + ["a"] * 3
        held = held_out(labels, range(33), 0.1, parts=2, seed=3)
        self.assertEqual(
            [self.indices(held, part) for part in (1, 2)], [[3, 28, 29, 32], [17, 19, 25, 31]]
        )

    def test_one_of_a_class_stays(self):
        self.assertEqual(held_out([0, 0, 1], "aab", 0.9).tolist(), [0, 0, 0])
        self.assertEqual(sum(held_out([0] * 4, range(4), 0.99)), 3)

    def test_groups(self):
        for name, group in (
            ("00012_00029.png", "00012"),
            ("00007_00012_00029.png", "00007_00012"),
            ("00029.png", "00029.png"),
            ("cat_00029.png", "cat_00029.png"),
        ):
            self.assertEqual(group_of(Path("train", name)), group)


if __name__ == "__main__":
    unittest.main()
