"""Pictures with boxes: formats, what is wrong in them, windows and their boxes, the loader."""

import csv
import io
import json
import tempfile
import unittest
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest import mock
from xml.sax.saxutils import escape

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import VOCDetection

from lab import decoding
from lab.augmentation import Window, cut
from lab.console import LabError, UsageError
from tasks import annotated
from tasks.detection.data import (
    SOURCES,
    DetectionDataset,
    make_loader,
    read_split,
)
from tasks.detection.windows import DRAWS, Windows, choose_window, move_boxes
from tasks.loaders import find_folder
from world import missing, street
from world.faces import FACES

PLAIN = Windows(64, vary=False)


def picture(path, size=(80, 120), seed=0, mode="RGB"):
    """Write a random picture of (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) << 8)
    else:
        image = Image.fromarray(pixels).convert(mode)
    image.save(path)


def box(image, corners, category=1, **more):
    """Return COCO's entry of a box given by its corners."""
    left, top, right, bottom = corners
    bbox = [left, top, right - left, bottom - top]
    return {"image_id": image, "category_id": category, "bbox": bbox, **more}


def write_coco(file, entries, names=("cat", "dog"), count=3, size=(80, 120)):
    """Write `count` pictures 0.png, ... of (height, width) and a file of boxes beside them."""
    images = []
    for k in range(count):
        picture(file.parent / f"{k}.png", size, k)
        images.append({"id": k, "file_name": f"{k}.png", "height": size[0], "width": size[1]})
    categories = [{"id": k, "name": name} for k, name in enumerate(names, 1)]
    content = {"images": images, "annotations": entries, "categories": categories}
    file.write_text(json.dumps(content))
    return content


def write_xml(file, boxes, size=(80, 120)):
    """Write VOC's file of (name, xmin, ymin, xmax, ymax, difficult)."""
    objects = "".join(
        f"<object><name>{escape(name)}</name><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, x1, y1, x2, y2, difficult in boxes
    )
    shape = f"<size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"<annotation>{shape}{objects}</annotation>")


class FolderCase(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)

    def read(self, dataset, mode="train", *args, root=None, **options):
        """Return a split and what was said while it was read."""
        out = io.StringIO()
        with redirect_stdout(out):
            split = read_split(dataset, root or self.root, mode, *args, **options)
        return split, out.getvalue()


class CocoTest(FolderCase):
    def test_reads(self):
        """Classes in the order of ids, boxes as corners, crowds ignored, no box no problem."""
        entries = [box(0, (10, 20, 40, 60), 2), box(0, (0, 0, 9, 9), 1, iscrowd=1)]
        (self.root / "test").mkdir()
        write_coco(self.root / "test" / "annotations.json", entries)
        split, said = self.read("coco", "test")
        self.assertEqual(split.classes, ("cat", "dog"))
        self.assertEqual(split.boxes[0].tolist(), [[10, 20, 40, 60], [0, 0, 9, 9]])
        self.assertEqual(split.labels[0].tolist(), [1, 0])
        self.assertEqual(split.ignored[0].tolist(), [False, True])
        self.assertEqual(([len(boxes) for boxes in split.boxes], said), ([2, 0, 0], ""))

    def test_layouts(self):
        """COCO's own, Roboflow's, CVAT's, and a file alone; each picture is found."""
        for file, folder in (
            ("annotations/instances_train2017.json", "train2017"),
            ("annotations/instances_train2017.json", "images/train2017"),
            ("train/_annotations.coco.json", "train"),
            ("annotations/instances_default.json", "images"),
            ("labels.json", "."),
        ):
            with self.subTest(file=file, folder=folder), tempfile.TemporaryDirectory() as place:
                root = Path(place)
                target = root / file
                (root / folder).mkdir(parents=True, exist_ok=True)
                target.parent.mkdir(parents=True, exist_ok=True)
                write_coco(root / folder / "any", [box(k, (1, 2, 30, 40)) for k in range(3)])
                (root / folder / "any").rename(target)
                train, said = self.read("coco", root=root)
                val, _ = self.read("coco", "val", root=root)
                self.assertEqual((len(train.paths), len(val.paths)), (2, 1))
                self.assertEqual(SOURCES["coco"].modes(root), ("train", "val"))

    def test_films_and_copies_are_held_out_whole(self):
        """Frames of a film, and what a tool has made of one picture, are on one side."""
        for pattern in ("film{}_{:04d}.png", "film{}/{:04d}.png", "film{}_png.rf.{:08x}.png"):
            with self.subTest(pattern=pattern), tempfile.TemporaryDirectory() as place:
                root = Path(place)
                content = write_coco(root / "a.json", [box(k, (1, 2, 30, 40)) for k in range(12)])
                names = [pattern.format(k // 3, k) for k in range(12)]
                content["images"] = [{"id": k, "file_name": name} for k, name in enumerate(names)]
                for name in names:
                    picture(root / name)
                (root / "a.json").write_text(json.dumps(content))
                sides = [
                    {path.relative_to(root).as_posix()[:5] for path in split.paths}
                    for split in (
                        self.read("coco", mode, root=root)[0] for mode in ("train", "val")
                    )
                ]
                self.assertEqual([len(films) for films in sides], [3, 1])

    def test_own_val(self):
        """A val of its own is taken whole, with the classes of train."""
        for mode, names in (("train", ("cat", "dog")), ("valid", ("dog", "cat"))):
            (self.root / mode).mkdir()
            write_coco(self.root / mode / "annotations.json", [box(0, (1, 2, 30, 40), 1)], names)
        val, said = self.read("coco", "val")
        self.assertEqual((val.classes, val.labels[0].tolist()), (("cat", "dog"), [1]))
        self.assertEqual((len(val.paths), said), (3, ""))
        self.assertEqual(len(self.read("coco", "train")[0].paths), 3)

    def test_numbers_and_flags_as_text(self):
        """Of "0", no crowd is meant; numbers of categories and pictures may be text, or both."""
        crowds = [("0", False), (0.0, False), ("", False), (None, False), ("false", False)]
        crowds += [("1", True), (True, True), ("true", True)]
        entries = [box(0, (k, 0, k + 9, 9), 1, iscrowd=flag) for k, (flag, _) in enumerate(crowds)]
        entries += [box("1", (0, 0, 9, 9), "2"), box(1, (9, 9, 30, 30), 2)]
        (self.root / "test").mkdir()
        content = write_coco(self.root / "test" / "annotations.json", entries)
        content["categories"][1]["id"] = "2"
        (self.root / "test" / "annotations.json").write_text(json.dumps(content))
        split, said = self.read("coco", "test")
        self.assertEqual(split.ignored[0].tolist(), [meant for _, meant in crowds])
        self.assertEqual((split.classes, split.labels[1].tolist()), (("cat", "dog"), [1, 1]))
        self.assertEqual(said, "")

    def test_order_of_classes(self):
        """By their numbers, not by these as text: 9 comes before 10."""
        (self.root / "test").mkdir()
        content = write_coco(self.root / "test" / "annotations.json", [box(0, (1, 2, 30, 40), 9)])
        content["categories"] = [{"id": "10", "name": "dog"}, {"id": 9, "name": "cat"}]
        (self.root / "test" / "annotations.json").write_text(json.dumps(content))
        self.assertEqual(self.read("coco", "test")[0].classes, ("cat", "dog"))

    def test_names_of_other_machines(self):
        """Windows' separators, quoted as in an address, folders that are not here."""
        names = ("sub\\0.png", "my%20dog.png", "C:\\photos\\1.png", "/home/x/2.png", "a b.png")
        entries = [box(k, (10, 10, 60, 60)) for k in range(5)]
        (self.root / "test").mkdir()
        content = write_coco(self.root / "test" / "annotations.json", entries)
        content["images"] = [{"id": k, "file_name": name} for k, name in enumerate(names)]
        (self.root / "test" / "annotations.json").write_text(json.dumps(content))
        here = ("sub/0.png", "my dog.png", "1.png", "2.png", "a b.png")
        for name in here:
            picture(self.root / "test" / name)
        (self.root / "test" / "0.png").unlink()
        split, said = self.read("coco", "test")
        self.assertEqual(split.paths, [self.root / "test" / name for name in here])
        self.assertEqual(said, "")
        picture(self.root / "test" / "more.png")
        _, said = self.read("coco", "test")
        self.assertIn("1 pictures of the folder are not in it, and not used (more.png)", said)

    def test_groups(self):
        """A group above the classes that has no box is no class; one that has is."""
        names = ("animals", "cat", "dog")
        (self.root / "test").mkdir()
        file = self.root / "test" / "annotations.json"
        for used, expected in ((2, ("cat", "dog")), (1, names)):
            content = write_coco(file, [box(0, (10, 10, 60, 60), used)], names)
            for entry, above in zip(content["categories"], ("none", "animals", "dog"), strict=True):
                entry["supercategory"] = above
            file.write_text(json.dumps(content))
            self.assertEqual(self.read("coco", "test")[0].classes, expected)

    def test_no_signs(self):
        """Another data set, given to the one that looks for signs."""
        (self.root / "test").mkdir()
        write_coco(self.root / "test" / "annotations.json", [box(0, (10, 10, 60, 60))])
        with self.assertRaisesRegex(LabError, "no class of traffic sign.*--dataset coco takes"):
            self.read("street", "test")

    def test_bad_files(self):
        """What no box can be read from is one line."""
        for content, *words in (
            ("{", "is no COCO file"),
            ("[]", "is no COCO file"),
            ('{"images": [], "annotations": []}', "is no COCO file", "categories"),
            (None, "leaves nothing to find"),
        ):
            with self.subTest(content=content):
                if content is None:
                    write_coco(self.root / "a.json", [])
                else:
                    (self.root / "a.json").write_text(content)
                with self.assertRaises(LabError) as caught:
                    self.read("coco")
                for word in words:
                    self.assertIn(word, str(caught.exception))
                self.assertNotIn("\n", str(caught.exception))
        content = write_coco(self.root / "a.json", [box(0, (1, 2, 30, 40))])
        for part, field, word in (("images", "id", "one id"), ("categories", "name", "one name")):
            for entry in (broken := json.loads(json.dumps(content)))[part]:
                entry[field] = "same"
            (self.root / "a.json").write_text(json.dumps(broken))
            with self.assertRaisesRegex(LabError, word):
                self.read("coco")
        (self.root / "b.json").write_text((self.root / "a.json").read_text())
        with self.assertRaisesRegex(LabError, "several files"):
            self.read("coco")

    def test_no_split(self):
        with self.assertRaisesRegex(LabError, "no annotations of train"):
            self.read("coco")
        with self.assertRaisesRegex(LabError, "no data folder"):
            self.read("coco", root=self.root / "none")
        with self.assertRaisesRegex(UsageError, "--data_root"):
            find_folder(SOURCES, "coco", None)
        self.assertEqual(find_folder(SOURCES, "coco", self.root), self.root)


class BadAnnotationTest(FolderCase):
    """Each of these comes from somebody's data set; the loader outlives two epochs of all."""

    BAD = (
        (box(0, (10, 10, 10, 40)), "1 without area"),
        (box(0, (200, 10, 230, 40)), "1 outside the picture"),
        (box(0, (-30, 10, 0, 40)), "1 outside the picture"),
        (box(0, (10, 10, 30, 40), 9), "1 of the unknown class 'category 9'"),
        ({"image_id": 0, "category_id": 1, "bbox": [1, 2, 3]}, "corners are no numbers"),
        ({"image_id": 0, "category_id": 1, "bbox": [1, 2, 3, "x"]}, "corners are no numbers"),
        ({"image_id": 0, "category_id": 1, "bbox": [1, 2, float("nan"), 4]}, "are no numbers"),
        ({"image_id": 0, "category_id": 1}, "corners are no numbers"),
        (box(77, (10, 10, 30, 40)), "1 of pictures that are not listed"),
    )

    def drain(self, split):
        """Draw two epochs of windows and the whole pictures; return all targets."""
        targets = []
        for how in (Windows(64), None):
            loader = make_loader(split, 2, how)
            for _ in range(2):
                for images, batch in loader:
                    self.assertTrue(images.isfinite().all())
                    targets += batch
        for target in targets:
            self.assertTrue((target["boxes"][:, 2:] > target["boxes"][:, :2]).all())
        return targets

    def test_boxes(self):
        """One is left out and named, the good ones stay."""
        good = [box(k, (10, 10, 60, 60), 2) for k in range(3)]
        (self.root / "test").mkdir()
        for bad, words in self.BAD:
            with self.subTest(bad=bad):
                write_coco(self.root / "test" / "annotations.json", [*good, bad])
                split, said = self.read("coco", "test")
                self.assertEqual(sum(map(len, split.boxes)), 3)
                self.assertIn("left out 1 box: ", said)
                self.assertIn(words, said)
                self.assertEqual(said.count("\n"), 1)
                self.drain(split)

    def test_many(self):
        """Together they are one line, too, the commonest first, with a picture's name."""
        good = [box(k, (10, 10, 60, 60), 2) for k in range(3)]
        (self.root / "test").mkdir()
        write_coco(self.root / "test" / "annotations.json", good + [bad for bad, _ in self.BAD])
        split, said = self.read("coco", "test")
        self.assertEqual(said.count("\n"), 1)
        self.assertIn("left out 9 boxes: 4 whose corners are no numbers (0.png)", said)
        self.drain(split)

    def test_shares_in_place_of_pixels(self):
        """In COCO's and VOC's files they are no boxes; pixels in YOLO's are none either."""
        shares = [box(0, (0.1, 0.2, 0.5, 0.9)), box(1, (10, 10, 60, 60))]
        (self.root / "test").mkdir()
        write_coco(self.root / "test" / "annotations.json", shares)
        split, said = self.read("coco", "test")
        self.assertEqual([path.name for path in split.paths], ["1.png", "2.png"])
        self.assertIn("1 within one pixel (in shares of the picture's size?) (0.png)", said)
        self.assertIn("left out 1 pictures with such boxes and no other (0.png)", said)
        write_coco(self.root / "test" / "annotations.json", shares[:1])
        with self.assertRaisesRegex(LabError, "leaves nothing to find"):
            self.read("coco", "test")
        (self.root / "test" / "annotations.json").unlink()
        write_xml(self.root / "test" / "0.xml", [("cat", 0.1, 0.2, 0.5, 0.9, 0)])
        write_xml(self.root / "test" / "1.xml", [("cat", 1, 1, 50, 60, 0)])
        _, said = self.read("voc", "test", ("cat",))
        self.assertIn("1 within one pixel", said)
        for k, row in enumerate(("0 0.5 0.5 0.5 0.5", "0 60 40 20 20")):
            (self.root / "test" / f"{k}.xml").unlink()
            (self.root / "test" / f"{k}.txt").write_text(row)
        split, said = self.read("yolo", "test")
        self.assertEqual(split.boxes[0].tolist(), [[30, 20, 90, 60]])
        self.assertIn("1 in other units than shares of the picture's size (1.png)", said)
        self.assertIn("neither data.yaml nor classes.txt names the classes", said)

    def test_swapped_corners(self):
        """Right for left, bottom for top: put right and counted, in every format of corners."""
        picture(self.root / "test" / "0.png")
        corners = ("cat", 50, 60, 11, 21, 0), ("dog", 1, 30, 20, 4, 0)
        write_xml(self.root / "test" / "0.xml", corners)
        split, said = self.read("voc", "test")
        self.assertEqual(split.boxes[0].tolist(), [[10, 20, 50, 60], [0, 3, 20, 30]])
        self.assertIn("2 boxes with swapped corners, put right (0.png)", said)
        (self.root / "test" / "0.xml").unlink()
        write_coco(self.root / "test" / "annotations.json", [box(0, (10, 40, 30, 10))])
        split, said = self.read("coco", "test")
        self.assertEqual(split.boxes[0].tolist(), [[10, 10, 30, 40]])
        self.assertIn("1 boxes with swapped corners", said)

    def test_a_lost_object_is_no_background(self):
        """A picture of which no box can be placed teaches nothing; that of another class does."""
        entries = [box(0, (10, 10, 10, 40)), box(1, (10, 10, 30, 40), 9), box(2, (1, 2, 30, 40))]
        (self.root / "test").mkdir()
        write_coco(self.root / "test" / "annotations.json", entries)
        split, _ = self.read("coco", "test")
        self.assertEqual([path.name for path in split.paths], ["1.png", "2.png"])
        self.assertEqual([len(pixels) for pixels in split.pictures], [80, 80])
        self.assertEqual(list(map(len, split.boxes)), [0, 1])

    def test_cut_at_the_border(self):
        (self.root / "test").mkdir()
        write_coco(self.root / "test" / "annotations.json", [box(0, (-5, 60, 500, 90))])
        split, said = self.read("coco", "test")
        self.assertEqual((split.boxes[0].tolist(), said), ([[0, 60, 120, 80]], ""))

    def test_pictures(self):
        """Missing, damaged, of another size: left out and named; any mode of colour is read."""
        place = self.root / "test"
        place.mkdir()
        content = write_coco(place / "annotations.json", [], count=6)
        for name, mode in (("0.png", "RGBA"), ("1.png", "I;16"), ("2.png", "P"), ("3.png", "L")):
            picture(place / name, mode=mode)
        (place / "4.png").write_bytes((place / "5.png").read_bytes()[:500])
        picture(place / "5.png", (40, 60))
        content["images"].append({"id": 6, "file_name": "none.png"})
        content["annotations"] = [box(k, (10, 10, 60, 60)) for k in range(7)]
        (place / "annotations.json").write_text(json.dumps(content))
        split, said = self.read("coco", "test")
        self.assertEqual([path.name for path in split.paths], [f"{k}.png" for k in range(4)])
        self.assertTrue(all(pixels.shape == (80, 120, 3) for pixels in split.pictures))
        self.assertGreater(split.pictures[1].std(), 50)  # 16 bits are not clipped to white
        self.assertIn("left out 3 of 7 files", said)
        for words in (
            "4.png (damaged",
            "5.png (is 60x40, but annotated as 120x80)",
            "none.png (No",
        ):
            self.assertIn(words, said)
        self.drain(split)

    def test_turned_by_exif(self):
        """Boxes of the size that is stored are used on what is stored, and that is said."""
        place = self.root / "test"
        place.mkdir()
        entries = [box(k, (10, 20, 60, 70)) for k in range(3)]
        content = write_coco(place / "annotations.json", entries)
        exif = Image.Exif()
        exif[0x0112] = 6
        for k in (0, 1):
            Image.open(place / f"{k}.png").save(place / f"{k}.png", exif=exif)
        content["images"][1] |= {"height": 120, "width": 80}  # as it is seen upright
        (place / "annotations.json").write_text(json.dumps(content))
        split, said = self.read("coco", "test")
        self.assertEqual(split.sizes, [(80, 120), (120, 80), (80, 120)])
        self.assertIn("1 picture (0.png) used as stored", said)
        self.assertNotIn("left out", said)
        stored = np.asarray(Image.open(place / "0.png"))
        np.testing.assert_array_equal(split.pictures[0], stored)
        with mock.patch("lab.decoding.CACHE_BUDGET", 1):
            unkept, _ = self.read("coco", "test")
        self.assertIsNone(unkept.pictures)
        np.testing.assert_array_equal(DetectionDataset(unkept).picture(0), stored)
        self.assertEqual(DetectionDataset(unkept).picture(1).shape, (120, 80, 3))

    def test_voc(self):
        """XML that is none, pictures without XML, XML without a picture, names of no class."""
        for k in range(3):
            picture(self.root / f"{k}.jpg", seed=k)
        write_xml(self.root / "0.xml", [("cat", 1, 1, 50, 60, 0), ("", 1, 1, 9, 9, 0)], (0, 0))
        (self.root / "1.xml").write_text("<annotation>")
        write_xml(self.root / "9.xml", [("cat", 1, 1, 50, 60, 0)])
        with mock.patch.object(
            annotated, "find_listing", lambda read, r, m, v: (read(r, m), False)
        ):
            split, said = self.read("voc")
        self.assertEqual(
            ([path.name for path in split.paths], split.classes), (["0.jpg"], ("cat",))
        )
        self.assertEqual(split.boxes[0].tolist(), [[0, 0, 50, 60]])
        for words in ("1.xml is no XML", "2.jpg (no XML beside it)", "9.jpg", "class '' (0.jpg)"):
            self.assertIn(words, said)
        self.drain(split)


class VocTest(FolderCase):
    def write(self, root):
        """Lay two pictures out as VOC 2012 has them."""
        for k, mode in enumerate(("train", "val")):
            name = f"2008_00000{k}"
            picture(root / "JPEGImages" / f"{name}.jpg", seed=k)
            objects = [("dog", 5, 6, 50, 60, 0), ("cat", 1, 1, 9, 9, 1)]
            write_xml(root / "Annotations" / f"{name}.xml", objects)
            table = root / "ImageSets" / "Main" / f"{mode}.txt"
            table.parent.mkdir(parents=True, exist_ok=True)
            table.write_text(f"{name}\n")

    def test_devkit(self):
        """The files torchvision reads, with its boxes; pixels counted from 0."""
        self.write(self.root / "VOCdevkit" / "VOC2012")
        for mode in ("train", "val"):
            split, _ = self.read("voc", mode)
            theirs = VOCDetection(self.root, image_set=mode)
            self.assertEqual([str(path) for path in split.paths], theirs.images)
            ((_, tree),) = theirs
            entries = tree["annotation"]["object"]
            self.assertEqual(split.classes, ("cat", "dog"))
            names = [split.classes[label] for label in split.labels[0]]
            self.assertEqual(names, [entry["name"] for entry in entries])
            self.assertEqual(split.boxes[0].tolist(), [[4, 5, 50, 60], [0, 0, 9, 9]])
            self.assertEqual(split.ignored[0].tolist(), [False, True])
        self.assertEqual(SOURCES["voc"].modes(self.root), ("train", "val"))

    def test_beside(self):
        """Pictures with XML beside them, in folders of splits."""
        for mode in ("train", "test"):
            picture(self.root / mode / "a b.PNG")
            write_xml(self.root / mode / "a b.xml", [("dog", 1, 1, 50, 60, 0)])
        split, said = self.read("voc", "test")
        self.assertEqual((split.paths[0].name, said), ("a b.PNG", ""))
        self.assertEqual(SOURCES["voc"].modes(self.root), ("train", "val", "test"))

    def test_shrinks(self):
        """Large pictures are shrunk to the longer side of 320, their boxes with them."""
        picture(self.root / "test" / "a.png", (400, 640))
        write_xml(self.root / "test" / "a.xml", [("dog", 101, 51, 400, 200, 0)], (400, 640))
        split, _ = self.read("voc", "test")
        self.assertEqual(split.sizes, [(200, 320)])
        self.assertEqual(split.boxes[0].tolist(), [[50, 25, 200, 100]])
        picture(self.root / "test" / "a.png", (100, 3000))  # 10.67 rows, rounded
        write_xml(self.root / "test" / "a.xml", [("dog", 1, 1, 1500, 100, 0)], (100, 3000))
        split, _ = self.read("voc", "test")
        np.testing.assert_allclose(split.boxes[0], [[0, 0, 160, 11]])

    def test_lists(self):
        """A name a line, with spaces, with an ending, with a byte order mark."""
        kit, names = self.root / "VOC2012", ("a b", "1")
        for name in names:
            picture(kit / "JPEGImages" / f"{name}.png")
            write_xml(kit / "Annotations" / f"{name}.xml", [("dog", 1, 1, 50, 60, 0)])
        table = kit / "ImageSets" / "Main" / "test.txt"
        table.parent.mkdir(parents=True)
        table.write_bytes("\ufeffa b.png\r\n\r\n1\r\n".encode())
        split, said = self.read("voc", "test")
        self.assertEqual(([path.name for path in split.paths], said), (["a b.png", "1.png"], ""))

    def test_encodings(self):
        """XML in an encoding that its parser does not know, but Python does."""
        picture(self.root / "test" / "0.png")
        text = '<?xml version="1.0" encoding="gb2312"?><annotation><object><name>猫</name><bndbox>'
        text += "<xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
        (self.root / "test" / "0.xml").write_bytes(f"{text}</annotation>".encode("gb2312"))
        split, said = self.read("voc", "test")
        self.assertEqual((split.classes, said), (("猫",), ""))

    def test_all_names_of_a_split(self):
        for name in ("valid", "Validation", "VAL"):
            for folder in (f"{name}", f"images/{name}"):
                with self.subTest(folder), tempfile.TemporaryDirectory() as place:
                    root = Path(place)
                    notes = folder.replace("images", "annotations")
                    picture(root / folder / "0.png")
                    write_xml(root / notes / "0.xml", [("dog", 1, 1, 50, 60, 0)])
                    split, said = self.read("voc", "val", root=root)
                    self.assertEqual((len(split.paths), said), (1, ""))
        (self.root / "val").mkdir()
        (self.root / "valid").mkdir()
        with self.assertRaisesRegex(LabError, "val/ and valid/, both names of val"):
            self.read("voc", "val")

    def test_one_folder_of_notes_for_all_splits(self):
        """Of it, each split has the files of its pictures."""
        for k, mode in enumerate(("train", "val")):
            picture(self.root / mode / f"{k}.png")
            write_xml(self.root / "annotations" / f"{k}.xml", [("dog", 1, 1, 50, 60, 0)])
        for k, mode in enumerate(("train", "val")):
            split, said = self.read("voc", mode)
            self.assertEqual(([path.name for path in split.paths], said), ([f"{k}.png"], ""))

    def test_is_not_downloaded_into_others(self):
        """Only the project's own folder is downloaded into."""
        with mock.patch.object(annotated, "download") as download:
            SOURCES["voc"].prepare(self.root)
            download.assert_not_called()
            SOURCES["voc"].prepare(annotated.DATA_ROOT)
            download.assert_called_once()


class BananaTest(FolderCase):
    def write(self, rows, columns=("img_name", "label", "xmin", "ymin", "xmax", "ymax")):
        for mode in ("train", "val"):
            folder = self.root / f"bananas_{mode}"
            for name in {row[0] for row in rows}:
                picture(folder / "images" / name)
            with (folder / "label.csv").open("w", newline="") as file:
                csv.writer(file).writerows([columns, *rows])

    def test_reads(self):
        self.write(
            [("0.png", 0, 10, 20, 30, 40), ("1.png", 0, 1, 2, 3, 4), ("1.png", 5, 1, 2, 3, 4)]
        )
        split, said = self.read("banana", "val")
        self.assertEqual((split.classes, len(split.paths)), (("banana",), 2))
        self.assertEqual(split.boxes[0].tolist(), [[10, 20, 30, 40]])
        self.assertIn("1 of the unknown class 'label 5' (1.png)", said)
        self.write([("0.png", 0)], ("img_name", "label"))
        with self.assertRaisesRegex(LabError, "has not the columns"):
            self.read("banana")


class StreetTest(FolderCase):
    def test_reads(self):
        """Signs alone, with the classes of all faces; those that are not clear are ignored."""
        street.streets_of((184, 320))(self.root, splits={"test": 6}, workers=1)
        split, said = self.read("street", "test")
        content = json.loads((self.root / "test" / "annotations.json").read_text())
        names = {entry["id"]: entry["name"] for entry in content["categories"]}
        signs = [e for e in content["annotations"] if names[e["category_id"]] in FACES]
        self.assertEqual((split.classes, said), (tuple(FACES), ""))
        self.assertLess(len(signs), len(content["annotations"]))
        labels = np.concatenate(split.labels).tolist()
        self.assertEqual(
            [split.classes[k] for k in labels], [names[e["category_id"]] for e in signs]
        )
        ignored = np.concatenate(split.ignored).tolist()
        self.assertEqual(ignored, [bool(entry["iscrowd"]) for entry in signs])

    def test_is_drawn_where_it_belongs(self):
        root = self.root / "street"
        with mock.patch.object(missing, "draw") as draw:
            SOURCES["street"].prepare(root)
            draw.assert_not_called()
            with mock.patch.object(missing, "DATA_ROOT", self.root):
                SOURCES["street"].prepare(root)
                draw.assert_called_once_with(missing.DRAWN["street"], root)
                (root / "train").mkdir(parents=True)
                SOURCES["street"].prepare(root)
                draw.assert_called_once()


class WindowTest(unittest.TestCase):
    def test_boxes_move_as_masks_do(self):
        """A box is around the pixels it was around, to a pixel, wherever the window lies."""
        rng = np.random.default_rng(0)
        windows = Windows(64, (0.5, 2.0), 0.2)
        for _ in range(200):
            size = rng.integers(40, 150, 2)
            corner = (rng.random(2) * (size - 12)).astype(int)
            top, left = corner
            bottom, right = np.minimum(corner + rng.integers(8, 50, 2), size)
            mask = np.zeros((*size, 3), np.uint8)
            mask[top:bottom, left:right] = 255
            mask = torch.from_numpy(mask)
            boxes = np.array([[left, top, right, bottom]], float)
            window = choose_window(tuple(size), boxes, windows, rng.random(DRAWS))
            moved, share = move_boxes(boxes, window, 64)
            seen = cut(mask, window, (64, 64))[0] > 160  # beyond the picture it is 127
            if share[0] == 0:
                self.assertFalse(seen.any())
                continue
            # A border between two pixels is mixed: half a pixel, and the size of one drawn.
            scale = 64 / min(window.width, window.height)
            rows, columns = np.nonzero(seen.any(1).numpy())[0], np.nonzero(seen.any(0).numpy())[0]
            if len(rows):
                around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                np.testing.assert_allclose(moved[0], around, atol=0.75 + 0.1 * scale)
            rows, columns = (
                slice(max(0, start), start + length)
                for start, length in ((window.top, window.height), (window.left, window.width))
            )
            part = mask[rows, columns, 0]
            self.assertAlmostEqual(share[0], (part > 0).sum() / (mask[..., 0] > 0).sum(), places=9)

    def test_windows_show_what_they_are_cut_around(self):
        """The whole box, wherever it lies and however large; else some windows miss it."""
        rng = np.random.default_rng(0)
        missed = 0
        for _ in range(500):
            size = rng.integers(30, 400, 2)
            ends = np.sort(rng.random((2, 2)) * size[::-1], axis=0)
            boxes = ends.reshape(1, 4)
            for around in (1.0, 0.0):
                windows = Windows(64, (0.6, 1.5), around=around)
                window = choose_window(tuple(size), boxes, windows, rng.random(DRAWS))
                left, top, width, height = window
                # Within the picture, or the picture within it.
                for start, length, whole in ((left, width, size[1]), (top, height, size[0])):
                    inside = 0 <= start <= start + length <= whole
                    self.assertTrue(inside or start <= 0 <= whole <= start + length)
                if around:
                    self.assertLessEqual(left, boxes[0, 0])
                    self.assertLessEqual(top, boxes[0, 1])
                    self.assertGreaterEqual(left + width, boxes[0, 2])
                    self.assertGreaterEqual(top + height, boxes[0, 3])
                else:
                    missed += move_boxes(boxes, window, 64)[1][0] < 1
        self.assertGreater(missed, 50)

    def test_zoom_and_places(self):
        """Magnified between the limits, both reached; windows reach every border."""
        rng = np.random.default_rng(0)
        windows = Windows(64, (0.5, 2.0), stretch=0.1, around=0)
        none = np.zeros((0, 4))
        cut_out = [choose_window((300, 400), none, windows, rng.random(DRAWS)) for _ in range(2000)]
        zooms = [64 / (w.width * w.height) ** 0.5 for w in cut_out]
        self.assertTrue(0.49 < min(zooms) < 0.52 and 1.95 < max(zooms) < 2.05)
        self.assertAlmostEqual(np.mean(np.log(zooms)), 0, delta=0.05)
        self.assertTrue(all(1 / 1.25 < w.width / w.height < 1.25 for w in cut_out))
        self.assertEqual(min(w.left for w in cut_out), 0)
        self.assertEqual(max(w.left + w.width for w in cut_out), 400)
        self.assertEqual(max(w.top + w.height for w in cut_out), 300)
        still = replace(windows, vary=False)
        sizes = {choose_window((300, 400), none, still, rng.random(DRAWS))[2:] for _ in range(20)}
        self.assertEqual(sizes, {(64, 64)})

    def test_nothing_is_squashed(self):
        """In pictures of any shape and around boxes of any: one side over the other, by 10 %."""
        rng = np.random.default_rng(0)
        windows = SOURCES["coco"].windows
        for vary, most in ((True, 1.11), (False, 1.005)):
            for _ in range(500):
                size = tuple(rng.integers(60, 321, 2))
                boxes = np.sort(rng.random((2, 2)) * size[::-1], axis=0).reshape(1, 4)
                own = replace(windows, vary=vary)
                window = choose_window(size, boxes, own, rng.random(DRAWS))
                self.assertTrue(1 / most < window.width / window.height < most, (size, window))

    def test_beyond_the_picture_is_grey(self):
        """The picture comes whole and unchanged, its boxes with it; what is around it is grey."""
        pixels = np.random.default_rng(0).integers(0, 256, (20, 50, 3)).astype(np.uint8)
        seen = cut(torch.from_numpy(pixels), Window(-5, -30, 64, 64), (64, 64))
        inside = seen[:, 30:50, 5:55].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(inside, pixels)
        seen[:, 30:50, 5:55] = 127
        self.assertEqual(seen.unique().tolist(), [127])
        moved, share = move_boxes(np.array([[0.0, 0, 50, 20]]), Window(-5, -30, 64, 64), 64)
        self.assertEqual((moved.tolist(), share.tolist()), ([[5, 30, 55, 50]], [1]))


class LoaderTest(FolderCase):
    def setUp(self):
        super().setUp()
        (self.root / "test").mkdir()
        entries = [box(k, (10 + k, 10, 40 + k, 40), 1 + k % 2) for k in range(10)]
        entries += [box(0, (100, 60, 119, 79), 1, iscrowd=1)]
        write_coco(self.root / "test" / "annotations.json", entries, count=10)
        self.split, _ = self.read("coco", "test")

    def epoch(self, split=None, batch_size=4, windows=Windows(64), start=0, epoch=1, **options):  # noqa: B008
        loader = make_loader(split or self.split, batch_size, windows, **options)
        loader.batch_sampler.epoch, loader.batch_sampler.start = epoch, start
        return list(loader)

    def assert_same(self, first, second):
        self.assertEqual(len(first), len(second))
        for (images, targets), (others, theirs) in zip(first, second, strict=True):
            self.assertTrue(torch.equal(images, others))
            self.assertEqual(len(targets), len(theirs))
            for target, other in zip(targets, theirs, strict=True):
                for name in ("boxes", "labels", "ignored"):
                    self.assertTrue(torch.equal(target[name], other[name]), name)

    def test_contract(self):
        loader = make_loader(self.split, 4, replace(Windows(64), each=2))
        self.assertEqual((len(loader), len(loader.dataset)), (5, 20))
        self.assertEqual(loader.dataset.classes, ("cat", "dog"))
        seen = 0
        for images, targets in loader:
            self.assertEqual((images.dtype, images.shape[1:]), (torch.float32, (3, 64, 64)))
            self.assertTrue(images.min() >= -1 and images.max() <= 1 and images.std() > 0.1)
            self.assertEqual(len(images), len(targets))
            for target in targets:
                boxes, labels, ignored = target["boxes"], target["labels"], target["ignored"]
                self.assertEqual((boxes.dtype, boxes.shape), (torch.float32, (len(labels), 4)))
                self.assertEqual((labels.dtype, ignored.dtype), (torch.int64, torch.bool))
                self.assertEqual(ignored.shape, labels.shape)
                self.assertTrue(((boxes >= 0) & (boxes <= 64)).all())
                seen += len(boxes)
        self.assertGreater(seen, 10)
        image, target = loader.dataset[3]
        self.assertEqual((image.shape, set(target)), ((3, 64, 64), {"boxes", "labels", "ignored"}))

    def test_windows_of_every_picture(self):
        """An epoch takes as many of each as it is told to."""
        read = DetectionDataset.picture
        with mock.patch.object(
            DetectionDataset, "picture", autospec=True, side_effect=read
        ) as asked:
            self.epoch(windows=replace(PLAIN, each=3))
        indices = [call.args[1] for call in asked.call_args_list]
        self.assertEqual(sorted(indices), [k for k in range(10) for _ in range(3)])

    def test_whole_pictures(self):
        """In order, pixels as they are; smaller ones have zeros at their right and bottom."""
        picture(self.root / "test" / "1.png", (60, 90), seed=1)
        file = self.root / "test" / "annotations.json"
        content = json.loads(file.read_text())
        content["images"][1] |= {"height": 60, "width": 90}
        file.write_text(json.dumps(content))
        split, _ = self.read("coco", "test")
        batches = self.epoch(split, windows=None)
        self.assertEqual([len(images) for images, _ in batches], [4, 4, 2])
        images, targets = batches[0]
        self.assertEqual(images.shape, (4, 3, 80, 120))
        self.assertTrue((images[1, :, 60:] == 0).all() and (images[1, :, :, 90:] == 0).all())
        for k, path in enumerate(split.paths[:4]):
            pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
            height, width = pixels.shape[1:]
            torch.testing.assert_close(images[k, :, :height, :width], pixels / 127.5 - 1)
            self.assertEqual(targets[k]["boxes"][0].tolist(), [10 + k, 10, 40 + k, 40])
        self.assertEqual(targets[0]["ignored"].tolist(), [False, True])

    def test_windows_come_from_their_pictures(self):
        """Without variation a window is a part of its picture, where its box says."""
        windows = replace(PLAIN, around=1.0)
        for images, targets in self.epoch(windows=windows):
            for image, target in zip(images, targets, strict=True):
                clear = ~target["ignored"]
                left, top, right, bottom = target["boxes"][clear][0].int().tolist()
                self.assertEqual((right - left, bottom - top), (30, 30))
                found = image[:, top:bottom, left:right]
                parts = [
                    torch.from_numpy(pixels[10:40, 10 + k : 40 + k]).permute(2, 0, 1) / 127.5 - 1
                    for k, pixels in enumerate(self.split.pictures)
                ]
                same = [k for k, part in enumerate(parts) if torch.allclose(found, part, atol=1e-6)]
                self.assertEqual([k % 2 for k in same], target["labels"][clear].tolist())

    def test_parts_of_boxes(self):
        """Of a box less than half inside, or tiny in the window, nobody is asked to find it."""
        parts = ("boxes", "labels", "ignored")
        alone = {name: [each[:1] for each in getattr(self.split, name)] for name in parts}
        split = replace(self.split, **alone)  # boxes of 30x30, and nothing else
        windows, seen = replace(PLAIN, size=32, around=0.0), []
        for epoch in range(1, 30):
            for _, targets in self.epoch(split, windows=windows, epoch=epoch):
                for target in targets:
                    for corners, ignored in zip(target["boxes"], target["ignored"], strict=True):
                        left, top, right, bottom = corners.tolist()
                        share = (right - left) * (bottom - top) / 900
                        tiny = max(right - left, bottom - top) < 8
                        self.assertEqual(bool(ignored), share < 0.5 or tiny)
                        seen.append(share)
        self.assertTrue(0 < min(seen) < 0.05 and max(seen) > 0.95)
        crowd = replace(split, ignored=[np.array([True])] * 10)
        for _, targets in self.epoch(crowd, windows=replace(PLAIN, around=0.0)):
            for target in targets:  # whole in the window, yet nobody is asked for it
                self.assertTrue(target["ignored"].all())
                self.assertEqual(len(target["ignored"]), len(target["boxes"]))
        for side, expected in ((7.9, True), (8.0, False)):
            boxes = [np.array([[20, 20, 20 + side, 24]])] * 10
            windows = replace(PLAIN, around=1.0)
            for _, targets in self.epoch(replace(split, boxes=boxes), windows=windows):
                self.assertTrue(all(bool(target["ignored"]) == expected for target in targets))

    def test_repeats(self):
        """The same seed and epoch draw the same windows, others others."""
        self.assert_same(self.epoch(), self.epoch())
        first = self.epoch()[0][0]
        for other in (self.epoch(seed=1), self.epoch(epoch=2)):
            self.assertFalse(torch.equal(first, other[0][0]))

    def test_resumes_within_an_epoch(self):
        """After `start` images, what is left is what the whole epoch would have drawn."""
        self.assert_same(self.epoch(start=4), self.epoch()[1:])
        self.assert_same(self.epoch(start=8), self.epoch()[2:])

    def test_workers_change_nothing(self):
        self.assert_same(self.epoch(num_workers=2), self.epoch())

    def test_processes_share_a_batch(self):
        """The windows of two processes are of the pictures of one."""
        whole = self.epoch(windows=None)
        shares = [self.epoch(windows=None, rank=rank, world_size=2) for rank in (0, 1)]
        for (images, _), *parts in zip(whole, *shares, strict=True):
            for rank, (own, _) in enumerate(parts):
                self.assertTrue(torch.equal(own, images[rank::2]))

    def test_too_many_for_memory(self):
        """Read from disk, the batches are the same, and it is said."""
        with mock.patch.object(decoding, "CACHE_BUDGET", 5 * 80 * 120 * 3):
            split, said = self.read("coco", "test")
        self.assertIsNone(split.pictures)
        self.assertIn("read from disk", said)
        self.assert_same(self.epoch(split), self.epoch())
        self.assert_same(self.epoch(split, windows=None), self.epoch(windows=None))
        with mock.patch.object(decoding, "CACHE_BUDGET", 10 * 80 * 120 * 3):
            self.assertEqual(len(self.read("coco", "test")[0].pictures), 10)

    def test_light_is_varied(self):
        """Each window differently; nothing in it moves."""
        grey = [np.full((80, 120, 3), 128, np.uint8)] * 10
        split = replace(self.split, pictures=grey)
        images = torch.cat([images for images, _ in self.epoch(split)])
        means = images.mean((1, 2, 3))
        self.assertEqual(len(means.unique()), 10)
        deviations = images.std((1, 2, 3))
        self.assertTrue(0 < (deviations > 0.002).sum() < 10, deviations)  # grain, in some
