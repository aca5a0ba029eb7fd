"""Published data sets as folders, from small copies of their layouts: GTSRB, Kaggle."""

import io
import os
import re
import shutil
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from PIL import Image

from lab import layouts
from lab.console import LabError, UsageError
from tests.support import ScriptCase, script, script_here
from world import signs


class GtsrbTest(ScriptCase):
    """Small copies of the benchmark: 43 classes of three tracks of three frames."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)
        self.disk = self.root / "disk"

    def write(self, training, tests, table, kaggle=False):
        """Write a copy with its training folders, test photographs and table at these places."""
        training, tests, table = (self.disk / place for place in (training, tests, table))
        tests.mkdir(parents=True)
        table.parent.mkdir(parents=True, exist_ok=True)
        rows = []
        for label in range(43):
            folder = training / (str(label) if kaggle else f"{label:05d}")
            folder.mkdir(parents=True)
            for track in range(3):
                for frame in range(3):
                    name = f"{track:05d}_{frame:05d}.ppm"
                    name = f"{label:05d}_{track:05d}_{frame:05d}.png" if kaggle else name
                    Image.new("RGB", (30, 30), (label, track, frame)).save(folder / name)
            if not kaggle:
                (folder / f"GT-{label:05d}.csv").write_text("Filename;ClassId\n")
            name = f"{label:05d}.{'png' if kaggle else 'ppm'}"
            Image.new("RGB", (30, 30), (label, 9, 9)).save(tests / name)
            row = ["30", "30", "1", "1", "28", "28", str(label)]
            rows.append([*row, f"{tests.name}/{name}"] if kaggle else [name, *row])
        header = ["Width", "Height", "Roi.X1", "Roi.Y1", "Roi.X2", "Roi.Y2", "ClassId"]
        header = [*header, "Path"] if kaggle else ["Filename", *header]
        delimiter = "," if kaggle else ";"
        table.write_text("".join(delimiter.join(row) + "\n" for row in [header, *rows]))
        return training

    def write_torchvisions(self):
        base = Path("gtsrb", "GTSRB")
        return self.write(base / "Training", base / "Final_Test/Images", "gtsrb/GT-final_test.csv")

    def prepare(self, num_classes=26, source=None):
        """Lay out; return the folder and what was said."""
        said = io.StringIO()
        with redirect_stdout(said):
            target = layouts.prepare_gtsrb(self.root, num_classes, source or self.disk)
        return target, said.getvalue()

    def split_of(self, target):
        """Return the mode of each photograph, by the three numbers in its first pixel."""
        modes = {}
        for path in target.glob("*/*/*"):
            with Image.open(path) as image:
                modes[image.getpixel((0, 0))] = path.parent.parent.name
        return modes

    def test_tracks_stay_together(self):
        """26 classes; no track in two splits; every frame once; the right faces in each folder."""
        self.write_torchvisions()
        for flag in ("--data_root", "--source"):
            done = script_here("datasets.py", "gtsrb", "--root", self.root, flag, self.disk)
            self.assertEqual(done.returncode, 0, done.stderr)
            target = self.root / "gtsrb26"
            names = sorted(path.name for path in (target / "train").iterdir())
            self.assertEqual(names, list(signs.CLASSES))
            self.assertIn(f"--data_root {target}", done.stdout)
            for new, old in enumerate(layouts.GTSRB_26):
                tracks = {}
                for mode in ("train", "val"):
                    files = sorted((target / mode / names[new]).iterdir())
                    tracks[mode] = {path.name.split("_")[0] for path in files}
                    self.assertEqual(len(files), 3 * len(tracks[mode]))
                    with Image.open(files[0]) as image:
                        self.assertEqual(image.getpixel((0, 0))[0], old)
                self.assertEqual([len(tracks["train"]), len(tracks["val"])], [2, 1])
                self.assertFalse(tracks["train"] & tracks["val"])
                (photograph,) = (target / "test" / names[new]).iterdir()
                with Image.open(photograph) as image:
                    self.assertEqual(image.getpixel((0, 0)), (old, 9, 9))
            shutil.rmtree(target)

    def test_every_copy_gives_the_same_split(self):
        """torchvision's layout, the authors' with the table in either place, and Kaggle's."""
        self.write_torchvisions()
        expected = self.split_of(self.prepare()[0])
        self.assertEqual(len(expected), 26 * (9 + 1))
        training, tests = "GTSRB/Final_Training/Images", "GTSRB/Final_Test/Images"
        for places, options, sources in (
            ((training, tests, f"{tests}/GT-final_test.csv"), {}, ("", "GTSRB")),
            ((training, tests, "GT-final_test.csv"), {}, ("", "GTSRB")),
            (("Train", "Test", "Test.csv"), {"kaggle": True}, ("",)),
        ):
            shutil.rmtree(self.disk)
            self.write(*places, **options)
            for source in sources:
                with self.subTest(places, source=source):
                    shutil.rmtree(self.root / "gtsrb26")
                    target, _ = self.prepare(source=self.disk / source)
                    self.assertEqual(self.split_of(target), expected)

    def test_all_43_and_not_twice(self):
        self.write_torchvisions()
        target, said = self.prepare(43)
        self.assertEqual(len(list((target / "test").iterdir())), 43)
        self.assertIn(f"{target / 'train'}: 258 images\n", said)
        with self.assertRaisesRegex(LabError, "exists already"):
            self.prepare(43)

    def test_damaged_photographs_are_left_out(self):
        """Those whose line ends were rewritten are named, not laid out in wrong colours."""
        folder = self.write_torchvisions() / "00001"
        whole = (folder / "00002_00001.ppm").read_bytes()
        (folder / "00002_00001.ppm").write_bytes(whole.replace(b"\n", b"\r\n"))
        (folder / "00002_00002.ppm").write_bytes(b"")
        target, said = self.prepare()
        self.assertRegex(said, r"left out 2 of 260 files: .*00001/00002_00001.ppm \(damaged image")
        self.assertIn("Training/00001/00002_00002.ppm (empty file)", said)
        counts = [int(line.split()[1]) for line in said.splitlines() if line.endswith(" images")]
        self.assertEqual(sum(counts), 258)
        self.assertEqual(len(self.split_of(target)), 258)

    def test_what_is_no_class(self):
        """Other folders and files beside the classes are said, or passed over."""
        training = self.write_torchvisions()
        for name in ("thumbnails", "00043", "-1"):
            (training / name).mkdir()
            Image.new("RGB", (30, 30)).save(training / name / "00000_00000.ppm")
        (training / "Readme.txt").touch()
        target, said = self.prepare(43)
        for name in ("thumbnails", "00043", "-1"):
            self.assertIn(f"Training/{name} is no class of the benchmark: left out", said)
        self.assertEqual(len(self.split_of(target)), 43 * 10)

    def test_what_is_no_copy(self):
        """Each in one line, and nothing is laid out."""

        def refused(*words):
            flags = ("--root", self.root, "--data_root", self.disk)
            self.assert_refused(script_here("datasets.py", "gtsrb", *flags), 1, *words)
            left = [path for path in self.root.iterdir() if path != self.disk]
            self.assertEqual(left, [])

        refused("holds no copy of the benchmark: neither GTSRB/Training")
        training = self.write_torchvisions()
        table = self.disk / "gtsrb" / "GT-final_test.csv"
        whole = table.read_text()
        for text in (
            whole.replace("ClassId", "Class"),
            whole.replace(";7\n", ";seven\n"),
            whole + "x;1\n",
        ):
            table.write_text(text)
            refused("is not the benchmark as published")
        table.unlink()
        refused("no table of test photographs")
        table.write_text(whole)
        (training / "00003" / "odd.ppm").touch()
        refused("is not the benchmark as published")
        (training / "00003" / "odd.ppm").unlink()
        (self.disk / "gtsrb/GTSRB/Final_Test/Images/00000.ppm").unlink()
        refused("lacks 1 of 260 photographs, such as")
        shutil.rmtree(training / "00005")
        refused("class 00005 has 0 tracks")

    def test_a_download_is_whole_or_not_at_all(self):
        """It appears when both parts are there; what a killed one left is removed."""
        (self.root / f".gtsrb-{2**22 + 1}" / "gtsrb").mkdir(parents=True)
        self.write_torchvisions()
        copied = []

        def download(root, split, download):
            copied.append(split)
            shutil.copytree(self.disk / "gtsrb", Path(root) / "gtsrb", dirs_exist_ok=True)
            if len(copied) == 1:
                raise RuntimeError("the connection broke")

        with mock.patch("torchvision.datasets.GTSRB", download):
            done = script_here("datasets.py", "gtsrb", "--root", self.root)
            self.assert_refused(done, 1, "could not download GTSRB (the connection broke)")
            self.assertEqual(list(self.root.iterdir()), [self.disk])
            done = script_here("datasets.py", "gtsrb", "--root", self.root)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(copied, ["train", "train", "test"])
        names = sorted(path.name for path in self.root.iterdir())
        self.assertEqual(names, ["disk", "gtsrb", "gtsrb26"])

    def test_a_kill_leaves_nothing_for_long(self):
        """What a killed run had made so far is removed by the next."""
        self.write_torchvisions()
        (self.root / f".gtsrb26-{2**22 + 1}" / "train").mkdir(parents=True)
        self.prepare()
        names = sorted(path.name for path in self.root.iterdir())
        self.assertEqual(names, ["disk", "gtsrb26"])


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
            layouts.prepare_kaggle(self.root, "cifar10", target or self.target, **options)
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
