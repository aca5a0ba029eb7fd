"""Kaggle's competitions as folders of images, from small copies of their layouts."""

import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from PIL import Image

from lab.console import LabError, UsageError
from published import kaggle
from tests.support import PROJECT, script, script_here


class KaggleTest(unittest.TestCase):
    """The layouts as Kaggle packs them; the pixels of an image say its class and its number."""

    COUNTS = {"airplane": 40, "frog": 25, "truck": 3}
    HELD_OUT = {"airplane": 4, "frog": 2, "truck": 1}  # a tenth, rounded, at least one

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name) / "kaggle"
        self.target = self.root / "train_val_test"
        self.labels = {}
        for folder in ("train", "test"):
            (self.root / folder).mkdir(parents=True)
        for number, name in enumerate(self.COUNTS):
            for _ in range(self.COUNTS[name]):
                image_id = len(self.labels) + 1
                self.labels[str(image_id)] = name
                image = Image.new("RGB", (8, 8), (number, image_id, 0))
                image.save(self.root / "train" / f"{image_id}.png")
        for image_id in (1, 2, 3):  # Kaggle numbers its test images from one again
            Image.new("RGB", (8, 8), (9, image_id, 0)).save(self.root / f"test/{image_id}.png")
        self.write_table(self.labels)

    def write_table(self, labels, name="trainLabels.csv", header="id,label"):
        rows = [f"{image_id},{label}" for image_id, label in labels.items()]
        (self.root / name).write_text("\n".join([header, *rows]) + "\n")

    def prepare(self, target=None, **options):
        """Lay out, and return what was said."""
        said = io.StringIO()
        with redirect_stdout(said):
            kaggle.prepare_kaggle(self.root, "cifar10", target or self.target, **options)
        return said.getvalue()

    def files(self, folder=None):
        """Return every file below a folder, hidden ones included, with its inode."""
        folder = folder or self.target
        found = sorted(path for path in folder.rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.stat().st_ino for path in found}

    def assert_refused(self, pattern, error=LabError, **options):
        """Nothing is made, and the error is one line that matches."""
        before = self.files(self.root)
        with self.assertRaisesRegex(error, pattern) as caught:
            self.prepare(**options)
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(self.files(self.root), before)

    def test_stratified_and_whole(self):
        """Each class gives a tenth to val and to test; each image is in one split, linked."""
        done = script("datasets.py", "kaggle", "--kind", "cifar10", "--root", self.root)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"{self.target / 'train'}: 54 images\n", done.stdout)
        self.assertIn(f"--data_root {self.target}\n", done.stdout)
        placed = []
        for number, (name, count) in enumerate(self.COUNTS.items()):
            held_out = self.HELD_OUT[name]
            for mode, expected in (
                ("train", count - 2 * held_out),
                ("val", held_out),
                ("test", held_out),
            ):
                files = sorted((self.target / mode / name).iterdir())
                self.assertEqual(len(files), expected, (mode, name))
                placed += files
                for path in files:
                    with Image.open(path) as image:
                        self.assertEqual(image.getpixel((0, 0)), (number, int(path.stem), 0))
        self.assertEqual(sorted(path.stem for path in placed), sorted(self.labels))
        unlabelled = sorted((self.target / "unlabelled" / "unknown").iterdir())
        self.assertEqual([path.name for path in unlabelled], ["1.png", "2.png", "3.png"])
        sources = [self.root / "train" / path.name for path in placed]
        sources += [self.root / "test" / path.name for path in unlabelled]
        for path, source in zip(placed + unlabelled, sources, strict=True):
            self.assertTrue(path.samefile(source))
        self.assertEqual(len(self.files()), len(sources))
        said = [entry.name for entry in self.root.iterdir()]
        self.assertEqual(sorted(said), ["test", "train", "trainLabels.csv", "train_val_test"])

    def test_dogs(self):
        """The other layout: labels.csv, breeds, .jpg, identifiers that are no numbers; no test/."""
        shutil.rmtree(self.root / "test")
        (self.root / "trainLabels.csv").unlink()
        for path in (self.root / "train").iterdir():
            path.rename(path.with_name(f"00a{path.stem}f.jpg"))
        breeds = {f"00a{key}f": f"{label}-haired_dog" for key, label in self.labels.items()}
        self.write_table(breeds, "labels.csv", "\ufeffid,breed")  # as saved by Excel
        target = self.root.parent / "dogs"
        arguments = ("--kind", "dogs", "--root", self.root, "--target", target)
        done = script("datasets.py", "kaggle", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(path.name for path in target.iterdir()), ["test", "train", "val"])
        for path in target.glob("*/*/*"):
            self.assertEqual(path.parent.name, breeds[path.stem])
            self.assertTrue(path.samefile(self.root / "train" / path.name))
        self.assertEqual(len(self.files(target)), len(breeds))

    def test_the_seed_alone_decides(self):
        """The table's order changes nothing; another seed draws another split of the same sizes."""
        self.prepare()
        self.write_table(dict(reversed(self.labels.items())))
        again, other = self.root.parent / "again", self.root.parent / "other"
        self.prepare(again)
        self.prepare(other, seed=1)
        self.assertEqual(self.files(again), self.files())
        self.assertNotEqual(self.files(other), self.files())
        self.assertEqual(len(self.files(other)), len(self.files()))

    def test_twice(self):
        """A second run changes nothing; removed files come back; hidden ones are let be."""
        self.prepare()
        made = self.files()
        self.assertIn("0 of 71 images were missing", self.prepare())
        self.assertEqual(self.files(), made)
        shutil.rmtree(self.target / "val")
        next((self.target / "train" / "frog").iterdir()).unlink()
        (self.target / "train" / ".DS_Store").touch()
        self.assertIn("8 of 71 images were missing", self.prepare())
        (self.target / "train" / ".DS_Store").unlink()
        self.assertEqual(self.files(), made)

    def test_a_layout_of_other_data(self):
        """A changed label, a foreign or a changed file in the target: said, and nothing touched."""
        self.prepare()
        self.write_table(self.labels | {"1": "frog"})
        self.assert_refused(r"train_val_test holds \d+ files that do not follow from")
        self.write_table(self.labels)
        foreign = self.target / "train" / "frog" / "holiday.png"
        foreign.touch()
        self.assert_refused(r"holds 1 files .* such as train/frog/holiday.png; .* new --target")
        foreign.unlink()
        path = next((self.target / "train" / "frog").iterdir())
        path.unlink()
        path.write_bytes(b"cut")
        self.assert_refused(rf"holds 1 files .* train/frog/{path.name}")

    def test_copies_where_there_are_no_links(self):
        with mock.patch.object(os, "link", side_effect=OSError("cross-device link")):
            self.prepare()
        linked = self.root.parent / "linked"
        self.prepare(linked)
        self.assertEqual(set(self.files()), set(self.files(linked)))
        for name in self.files():
            self.assertFalse((self.target / name).samefile(linked / name))
            self.assertEqual((self.target / name).read_bytes(), (linked / name).read_bytes())

    def test_an_error_half_way_leaves_nothing(self):
        """Neither when the layout is made, nor when it is completed."""
        link, calls = os.link, []

        def fail_late(*arguments):
            calls.append(arguments)
            if len(calls) % 5 == 0:
                raise OSError("no space left on device")
            link(*arguments)

        broken = mock.patch.object(os, "link", side_effect=fail_late)
        copying = mock.patch.object(shutil, "copy2", side_effect=OSError("no space left on device"))
        with broken, copying:
            self.assert_refused("cannot lay out .*: no space left on device")
        self.prepare()
        shutil.rmtree(self.target / "train")
        with broken, copying:
            self.assert_refused("cannot lay out")

    def test_table_and_images_must_agree(self):
        for image_id in (2, 3, 4, 60):
            (self.root / "train" / f"{image_id}.png").unlink()
        self.assert_refused("labels 4 images that train/ does not hold: 2, 3, 4, ...$")
        self.write_table({key: label for key, label in self.labels.items() if int(key) > 4})
        Image.new("RGB", (8, 8)).save(self.root / "train" / "60.png")
        self.assert_refused("has no label for 1 images in train/: 1$")
        Image.new("RGB", (8, 8)).save(self.root / "train" / "9.JPG")
        self.assert_refused("holds image 9 twice: 9.JPG and 9.png")

    def test_bad_tables(self):
        """Each in a line that names the table, and where a row is to blame, its line."""
        table = self.root / "trainLabels.csv"
        whole = table.read_text()
        for text, pattern in {
            "": "has no columns id and label",
            "id,breed\n1,frog\n": "has no columns id and label",
            "id,label\n": "holds no labels",
            whole + "5,frog\n": "line 70: image 5 has a label already",
            whole + "99\n": "line 70 lacks id or label",
            whole + ",frog\n": "line 70 lacks id or label",
            whole.replace("\n2,airplane", "\n2,../x"): r"line 3: the class '\.\./x' cannot name",
            whole.replace("\n2,airplane", "\n2,.."): "line 3: the class .* cannot name a folder",
            whole.replace("\n2,airplane", "\n2,a\\b"): "line 3: the class .* cannot name a folder",
            whole.replace("\n2,airplane", "\n2,.git"): "line 3: the class .* cannot name a folder",
            whole.replace("\n2,airplane", '\n2,"a\nb"'): "the class 'a.nb' cannot name a folder",
            whole.replace("\n2,airplane", "\n2,zebra"): "has 1 of class zebra; train, val and test",
        }.items():
            with self.subTest(pattern):
                table.write_text(text)
                self.assert_refused(f"trainLabels.csv.*{pattern}")
        table.write_bytes(b"id,label\n1,\xff\xfe\n")
        self.assert_refused("cannot read .*trainLabels.csv")
        table.unlink()
        self.assert_refused("no table of labels .*trainLabels.csv .*dogs: labels.csv")

    def test_target_apart_from_the_source(self):
        """A target around or within Kaggle's folders would be read as its files: refused."""
        for place in (self.root, self.root.parent, self.root / "train", self.root / "test" / "x"):
            self.assert_refused("would mix with the files", UsageError, target=place)
        (self.root / "train").rename(self.root / "training")
        self.assert_refused("cannot read .*train: No such file or directory; --root")

    def test_wrong_flags(self):
        for flags, word in (
            ((), "gtsrb"),
            (("imagenet",), "gtsrb|kaggle|gtsdb|street"),
            (("kaggle", "--root", self.root), "--kind"),
            (("kaggle", "--kind", "cats", "--root", self.root), "cifar10"),
        ):
            done = script_here("datasets.py", *flags)
            self.assertEqual(done.returncode, 2)
            self.assertRegex(done.stderr, rf"^datasets.py.*: error: .*{re.escape(word)}.*\n$")

    def test_flags_are_read_without_torch(self):
        """Help and a wrong flag are answered before the script imports what is heavy."""
        code = (
            "import runpy, sys\nsys.argv = ['datasets.py', *sys.argv[1:]]\n"
            "try: runpy.run_path('datasets.py', run_name='__main__')\n"
            "except SystemExit as end: print(end.code, 'numpy' in sys.modules)"
        )
        for flags, status in (("--help", 0), ("gtsrb --help", 0), ("street --sed 1", 2), ("", 2)):
            done = subprocess.run(
                [sys.executable, "-c", code, *flags.split()],
                cwd=PROJECT, capture_output=True, text=True,
            )  # fmt: skip
            self.assertEqual(done.stdout.splitlines()[-1], f"{status} False", done.stderr)

    def test_the_same_choice_as_ever(self):
        """Images of val and of test by the seed alone."""
        for seed, val, test in (
            (0, [2, 13, 31, 34, 57, 65, 68], [11, 12, 30, 40, 49, 59, 66]),
            (5, [15, 26, 31, 37, 45, 46, 67], [8, 18, 30, 32, 48, 52, 68]),
        ):
            target = self.root.parent / f"seed_{seed}"
            self.prepare(target, seed=seed)
            held = {
                mode: sorted(int(path.stem) for path in (target / mode).glob("*/*"))
                for mode in ("val", "test")
            }
            self.assertEqual(held, {"val": val, "test": test})


if __name__ == "__main__":
    unittest.main()
