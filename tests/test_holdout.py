"""What is held out: groups whole, by the seed alone, and the same as ever."""

import unittest
from pathlib import Path

from lab.holdout import film_of_clip, films_of, group_of, held_out, held_out_films


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

    def test_as_many_groups_as_labels(self):
        with self.assertRaises(ValueError):
            held_out([0] * 3, "ab", 0.5)

    def test_one_of_a_class_stays(self):
        self.assertEqual(held_out([0, 0, 1], "aab", 0.9).tolist(), [0, 0, 0])
        self.assertEqual(sum(held_out([0] * 4, range(4), 0.99)), 3)

    def test_groups(self):
        for name, group in (
            ("00012_00029.png", "00012"),
            ("00007_00012_00029.png", "00007_00012"),
            ("00029.png", "00029.png"),
            ("cat_00029.png", "cat_00029.png"),
            ("v_Biking_g01_c04_012.png", "v_Biking_g01"),
        ):
            self.assertEqual(group_of(Path("train", name)), group)


class FilmTest(unittest.TestCase):
    """What is of one film, by names that tools and data sets give."""

    def held(self, names, labels=None, share=0.1, of=films_of):
        """Return the names that stay, and those that are held out."""
        paths = [Path("data", "train", name) for name in names]
        films = of(paths)
        held = held_out_films(labels or [0] * len(names), films, share).tolist()
        return [[name for name, out in zip(names, held, strict=True) if out == k] for k in (0, 1)]

    def assert_whole(self, names, count, film, **more):
        """So many are held out, and films, by the given length of their names, are on one side."""
        stay, out = self.held(names, **more)
        self.assertEqual(len(out), count, out)
        self.assertFalse({name[:film] for name in stay} & {name[:film] for name in out})

    def test_pictures_of_films(self):
        camvid = [f"{film}_{6000 + 30 * k:06d}.png" for film in ("01TP", "06R0", "16E5")
                  for k in range(7)]  # fmt: skip
        self.assert_whole(camvid, 7, 4)
        self.assert_whole([f"Seq{film}VD_f{k:05d}.png" for film in "567" for k in range(4)], 4, 4)
        self.assert_whole([f"{film}/{k:03d}.jpg" for film in "abcd" for k in range(5)], 5, 1)
        self.assert_whole([f"{film}-frame{k}.jpg" for film in "ab" for k in range(11)], 11, 1)
        self.assert_whole([f"v_X_g0{g}_c01_{k:03d}.jpg" for g in "123" for k in range(4)], 4, 7)
        self.assert_whole([f"0000{t}_{f:05d}.ppm" for t in "123" for f in range(4)], 4, 5)
        copies = [f"dog-{k}_jpg.rf.{copy:032x}.jpg" for k in range(10, 40) for copy in range(3)]
        self.assert_whole(copies, 9, 6)

    def test_a_small_film_rather_than_a_large_one(self):
        names = [f"a_{k:04d}.png" for k in range(80)] + [f"b_{k:04d}.png" for k in range(12)]
        self.assertEqual(self.held([*names, "c.png"])[0], names[:80])

    def test_other_pictures_are_held_out_one_by_one(self):
        """The same as ever: numbered ones of one name, of no name, of things in no order."""
        for pattern in ("raccoon-{}.jpg", "{:06d}.jpg", "IMG_{:04d}.jpg", "frame_{}.jpg"):
            names = [pattern.format(k) for k in range(20)]
            self.assertEqual(self.held(names)[1], [names[4], names[19]])
        pets = [f"{kind}_{k}.jpg" for kind in ("pug", "boxer") for k in range(1, 120)]
        self.assertEqual({name[:3] for name in self.held(pets)[1]}, {"pug", "box"})

    def test_clips(self):
        """Clips of a film stay together over all classes; no class loses more than half."""

        def clips(paths):
            return list(map(film_of_clip, paths))

        for pattern in ("film{}_clip{}.mp4", "film{}-{}.avi", "v_X_g{}_c0{}.avi", "film{}scene{}"):
            names = [pattern.format(film, clip) for film in range(10, 18) for clip in range(4)]
            labels = [clip % 2 for _ in range(8) for clip in range(4)]
            length = pattern.index("{") + 2
            self.assert_whole(names, 4, length, labels=labels, of=clips)
        kinetics = [f"a-b_c{k}_{s:06d}_{s + 10:06d}.mp4" for k in range(9) for s in (3, 40)]
        self.assert_whole(kinetics, 2, 6, of=clips)
        single = [f"{kind}_{k}.mp4" for kind in ("jump", "run") for k in range(10)]
        out = self.held(single, [0] * 10 + [1] * 10, of=clips)[1]
        self.assertEqual([name[:3] for name in out], ["jum", "run"])


if __name__ == "__main__":
    unittest.main()
