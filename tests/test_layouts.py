"""Published data sets as folders, from small copies of their layouts: GTSRB, Kaggle."""

import tempfile
import unittest
from pathlib import Path

from PIL import Image

import layouts
import signs
from console import LabError
from tests.support import script


class GtsrbTest(unittest.TestCase):
    def setUp(self):
        """The benchmark's own layout, with a few tracks of three frames a class."""
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)
        base = self.root / "disk" / "gtsrb" / "GTSRB"
        rows = []
        for label in range(43):
            folder = base / "Training" / f"{label:05d}"
            folder.mkdir(parents=True)
            for track in range(3):
                for frame in range(3):
                    image = Image.new("RGB", (30, 30), (label, track, frame))
                    image.save(folder / f"{track:05d}_{frame:05d}.ppm")
            (folder / f"GT-{label:05d}.csv").write_text("Filename;ClassId\n")
            rows.append((f"{label:05d}.ppm", label))
        images = base / "Final_Test" / "Images"
        images.mkdir(parents=True)
        for name, label in rows:
            Image.new("RGB", (30, 30), (label, 9, 9)).save(images / name)
        table = "".join(f"{name};30;30;1;1;28;28;{label}\n" for name, label in rows)
        header = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId\n"
        (base.parent / "GT-final_test.csv").write_text(header + table)

    def test_tracks_stay_together(self):
        """26 classes; no track in two splits; every frame once; the right faces in each folder."""
        done = script("datasets.py", "gtsrb", "--root", self.root, "--source", self.root / "disk")
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

    def test_all_43_and_not_twice(self):
        layouts.prepare_gtsrb(self.root, 43, self.root / "disk")
        self.assertEqual(len(list((self.root / "gtsrb43" / "test").iterdir())), 43)
        with self.assertRaisesRegex(LabError, "exists already"):
            layouts.prepare_gtsrb(self.root, 43, self.root / "disk")

    def test_wrong_folder(self):
        done = script("datasets.py", "gtsrb", "--root", self.root, "--source", self.root)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, r"^datasets.py: error: .* holds no GTSRB/Training folder")
