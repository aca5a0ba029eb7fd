"""The sign benchmark as folders of images, from small copies of its layouts."""

import io
import shutil
import tempfile
import unittest
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

from PIL import Image

from lab.console import LabError
from published import gtsrb
from tests.support import ScriptCase, script_here
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
            (folder / f"._{name}").write_bytes(b"of a Mac")
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
            target = gtsrb.prepare_gtsrb(self.root, num_classes, source or self.disk)
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
            for new, old in enumerate(gtsrb.COURSE):
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

    def test_the_same_choice_as_ever(self):
        """Whole tracks by the seed alone, chosen in the order of their names."""
        self.write_torchvisions()
        expected = {
            0: "2221000212001010212020011100220112221122221",
            7: "0100210001220002100001221020101200001012211",
        }
        for seed in expected:
            with redirect_stdout(io.StringIO()):
                target = gtsrb.prepare_gtsrb(self.root, 43, self.disk, seed)
            val = {key[:2] for key, mode in self.split_of(target).items() if mode == "val"}
            tracks = "".join(str(track) for _, track in sorted(val))
            self.assertEqual(tracks, expected[seed])
            shutil.rmtree(target)


if __name__ == "__main__":
    unittest.main()
