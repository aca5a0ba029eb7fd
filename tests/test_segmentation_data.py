"""Pictures with labels: label images, layouts, windows, loaders."""

import io
import math
import tempfile
import unittest
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from lab.augmentation import Window, vary_light
from lab.console import LabError
from tasks import annotated
from tasks.segmentation import data
from tasks.segmentation.data import SOURCES, class_shares, make_loader, read_split
from tasks.segmentation.labels import (
    CAMVID_CLASSES,
    IGNORED,
    VOC_CLASSES,
    VOC_COLORMAP,
    colours_of,
    read_label,
)
from tasks.segmentation.windows import (
    DRAWS,
    GREY_SHARE,
    Cut,
    Windows,
    choose_window,
    cut_window,
    other_colours,
    vary_camera,
)
from tests.support import ScriptCase, script_here
from world import street

RNG = np.random.default_rng(0)


def save(path, pixels, mode=None, palette=None):
    """Write an array as an image; a palette makes numbers a palette PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(pixels, np.uint8), mode)
    if palette is not None:
        image.putpalette([level for colour in palette for level in colour])
    image.save(path)
    return path


def make_folder(root, counts, size=(40, 48), classes=3, named=True):
    """Write pictures whose brightness is their label, in images/ and labels/."""
    rng = np.random.default_rng(1)
    for mode, count in counts.items():
        for index in range(count):
            labels = np.zeros(size, np.uint8)
            labels[:, size[1] // 2 :] = rng.integers(1, classes)
            labels[:2] = IGNORED
            pixels = np.repeat(80 * labels[:, :, None].clip(0, 2), 3, 2)
            save(root / mode / "images" / f"{index:02d}.png", pixels)
            save(root / mode / "labels" / f"{index:02d}.png", labels)
    if named:
        (root / "classes.txt").write_text("".join(f"kind {k}\n" for k in range(classes)))
    return root


class Folder(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.root = Path(self.temp.name)

    def read(self, *arguments, **options):
        """Read a split; return it and what was said."""
        said = io.StringIO()
        with redirect_stdout(said):
            split = read_split(*arguments, **options)
        return split, said.getvalue()


# ---------------------------------------------------------------- label images


class LabelTest(Folder):
    numbers = RNG.integers(0, 21, (7, 9))

    def read_label(self, path, count=21, ignored=IGNORED, colours=VOC_COLORMAP):
        return read_label(path, count, ignored, colours)

    def test_palettes_are_numbers(self):
        """Whatever colours a palette has: here those of other numbers."""
        shifted = [*VOC_COLORMAP[5:], *VOC_COLORMAP[:5]]
        for name, palette in (("plain", None), ("own", VOC_COLORMAP), ("shifted", shifted)):
            path = save(self.root / f"{name}.png", self.numbers, palette=palette)
            with Image.open(path) as image:
                self.assertEqual(image.mode, "L" if palette is None else "P")
            np.testing.assert_array_equal(self.read_label(path), self.numbers)

    def test_colours_are_looked_up(self):
        pixels = np.array(VOC_COLORMAP)[self.numbers]
        for suffix in ("RGB", "RGBA"):
            path = self.root / f"{suffix}.png"
            Image.fromarray(pixels.astype(np.uint8)).convert(suffix).save(path)
            np.testing.assert_array_equal(self.read_label(path), self.numbers)

    def test_a_colour_in_no_palette(self):
        pixels = np.array(VOC_COLORMAP, np.uint8)[self.numbers]
        pixels[3, 6] = 128, 0, 1
        path = save(self.root / "odd.png", pixels)
        with self.assertRaisesRegex(LabError, r"odd\.png has the colour \(128, 0, 1\) at 6, 3"):
            self.read_label(path)

    def test_ignored(self):
        """255 always, and the number that a data set has for it, among its classes or beyond."""
        path = save(self.root / "a.png", [[0, 11, 255, 10]])
        self.assertEqual(self.read_label(path, 11, 11).tolist(), [[0, IGNORED, IGNORED, 10]])
        with self.assertRaisesRegex(LabError, "labels class 11, but the 11 classes are 0 to 10"):
            self.read_label(path, 11)

    def test_numbers_that_are_no_class(self):
        path = save(self.root / "many.png", np.arange(200)[None])
        with self.assertRaisesRegex(LabError, "many.png labels class 12, but the 12 classes"):
            self.read_label(path, 12)
        self.assertEqual(self.read_label(path, 200).max(), 199)
        wide = Image.fromarray(np.array([[0, 300]], np.uint16))
        wide.save(self.root / "wide.png")
        with self.assertRaisesRegex(LabError, "labels class"):
            self.read_label(self.root / "wide.png", 255)

    def test_grey_with_alpha(self):
        """LA's numbers are those of its grey; how opaque they are says nothing."""
        grey = Image.fromarray(self.numbers.astype(np.uint8))
        alpha = Image.fromarray(RNG.integers(0, 256, self.numbers.shape).astype(np.uint8))
        Image.merge("LA", (grey, alpha)).save(self.root / "la.png")
        np.testing.assert_array_equal(self.read_label(self.root / "la.png"), self.numbers)

    def test_colours_that_nobody_says(self):
        """Grey ones are numbers; of others it is asked what they stand for."""
        path = save(self.root / "grey.png", np.repeat(self.numbers[:, :, None], 3, 2))
        np.testing.assert_array_equal(self.read_label(path, colours=[]), self.numbers)
        path = save(self.root / "voc.png", np.array(VOC_COLORMAP)[self.numbers])
        with self.assertRaisesRegex(LabError, r"voc\.png labels by colours.*classes\.txt"):
            self.read_label(path, colours=[])

    def test_colours_that_are_grey(self):
        """Classes of grey colours are looked up in grey images, too."""
        for levels, mode in (((0, 255), "1"), ((0, 128, 255), "L"), ((0, 128, 255), "LA")):
            numbers = RNG.integers(0, len(levels), (7, 9))
            image = Image.fromarray(np.array(levels, np.uint8)[numbers]).convert(mode)
            image.save(self.root / "grey.png")
            colours = [(level,) * 3 for level in levels]
            found = self.read_label(self.root / "grey.png", len(levels), colours=colours)
            np.testing.assert_array_equal(found, numbers)

    def test_no_image(self):
        (self.root / "text.png").write_text("no image")
        with self.assertRaises(OSError):
            self.read_label(self.root / "text.png")

    def test_palettes(self):
        """VOC's as published; CamVid's own for its classes."""
        published = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
        self.assertEqual(VOC_COLORMAP[:5], published)
        self.assertEqual((len(VOC_COLORMAP), VOC_COLORMAP[20]), (21, (0, 64, 128)))
        self.assertEqual(len(set(VOC_COLORMAP)), 21)
        self.assertEqual(colours_of(CAMVID_CLASSES)[0], (128, 128, 128))
        self.assertEqual(colours_of(("a", "b")), [(0, 0, 0), (128, 0, 0)])


# ---------------------------------------------------------------- layouts


class StreetTest(Folder):
    def test_reads_what_is_drawn(self):
        splits = {"train": 2, "val": 1, "test": 1}
        street.streets_of((64, 96))(self.root, 0, splits, workers=1)
        self.assertEqual(SOURCES["street"].modes(self.root), ("train", "val", "test"))
        split, said = self.read("street", self.root, "train")
        self.assertEqual((split.classes, len(split.paths), said), (CAMVID_CLASSES, 2, ""))
        raw = np.array(Image.open(self.root / "train/SegmentationClass/00001.png"))
        np.testing.assert_array_equal(split.labels[1], np.where(raw == 11, IGNORED, raw))
        np.testing.assert_array_equal(split.pictures[1], np.array(Image.open(split.paths[1])))


class CamvidTest(Folder):
    def setUp(self):
        super().setUp()
        for mode in ("train", "val"):
            for index in range(4):
                save(self.root / mode / f"{index}.png", np.zeros((6, 8, 3)))
                save(self.root / f"{mode}annot" / f"{index}.png", np.full((6, 8), index + 8))

    def test_reads_pairs(self):
        split, _ = self.read("camvid", self.root, "val")
        self.assertEqual([labels[0, 0] for labels in split.labels], [8, 9, 10, IGNORED])
        self.assertEqual(SOURCES["camvid"].modes(self.root), ("train", "val"))

    def test_what_cannot_be_used_is_named(self):
        save(self.root / "trainannot" / "1.png", np.zeros((6, 9)))
        (self.root / "trainannot" / "2.png").unlink()
        (self.root / "train" / "3.png").write_bytes(b"\x89PNG no")
        split, said = self.read("camvid", self.root, "train")
        self.assertEqual([path.name for path in split.paths], ["0.png"])
        self.assertIn("left out 3 of 4 files", said)
        self.assertIn("1.png (is 8x6, but its labels are 9x6)", said)
        self.assertIn("2.png (no 2.png)", said)

    def test_nothing_labelled(self):
        for index in range(4):
            save(self.root / "valannot" / f"{index}.png", np.full((6, 8), 11))
        with self.assertRaisesRegex(LabError, "leaves nothing to learn"):
            self.read("camvid", self.root, "val")

    def test_recognised(self):
        """A folder says by its layout what it is; the data set named has the first word."""
        self.assertEqual(data.recognised("street", self.root), "camvid")
        self.assertEqual(data.recognised("camvid", self.root), "camvid")
        self.assertEqual(data.recognised("voc", self.root / "nothing"), "voc")


class VocTest(Folder):
    def test_reads_numbers_and_the_open_border(self):
        kit = self.root / "VOCdevkit" / "VOC2012"
        labels = RNG.integers(0, 21, (6, 8))
        labels[0, 0] = 255
        palette = [*VOC_COLORMAP, *[(0, 0, 0)] * 234, (224, 224, 192)]
        save(kit / "JPEGImages" / "a.jpg", np.zeros((6, 8, 3)))
        save(kit / "SegmentationClass" / "a.png", labels, palette=palette)
        (kit / "ImageSets" / "Segmentation").mkdir(parents=True)
        (kit / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
        split, _ = self.read("voc", self.root, "train")
        self.assertEqual(split.classes, VOC_CLASSES)
        np.testing.assert_array_equal(split.labels[0], labels)
        colours = np.array(palette, np.uint8)[labels]  # as some tools rewrite them
        save(kit / "SegmentationClass" / "a.png", colours)
        split, _ = self.read("voc", self.root, "train")
        np.testing.assert_array_equal(split.labels[0], labels)

    def test_lists_and_kinds_of_pictures(self):
        """A name a line, with spaces; PNG pictures; Kaggle's folder in a folder of its name."""
        kit = self.root / "VOC2012_train_val" / "VOC2012_train_val"
        for name in ("a b", "c"):
            save(kit / "JPEGImages" / f"{name}.png", np.zeros((6, 8, 3)))
            save(kit / "SegmentationClass" / f"{name}.png", np.ones((6, 8)))
        (kit / "ImageSets" / "Segmentation").mkdir(parents=True)
        (kit / "ImageSets" / "Segmentation" / "test.txt").write_text("\ufeffa b\r\nc\r\n")
        split, said = self.read("voc", self.root, "test")
        self.assertEqual([path.name for path in split.paths], ["a b.png", "c.png"])
        self.assertEqual(said, "")

    def test_classes_of_cvat(self):
        """Its labelmap.txt, not VOC's classes, with the colours that it gives them."""
        labels = np.zeros((6, 8, 3), np.uint8)
        labels[:, 4:] = (250, 50, 83)
        save(self.root / "JPEGImages" / "a.png", np.zeros((6, 8, 3)))
        save(self.root / "SegmentationClass" / "a.png", labels)
        (self.root / "ImageSets" / "Segmentation").mkdir(parents=True)
        (self.root / "ImageSets" / "Segmentation" / "default.txt").write_text("a\n")
        text = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nmy cat:250,50,83::\n"
        (self.root / "labelmap.txt").write_text(text)
        split, _ = self.read("voc", self.root, "train", val_share=0)
        self.assertEqual(split.classes, ("background", "my cat"))
        self.assertEqual(split.labels[0][0].tolist(), [0, 0, 0, 0, 1, 1, 1, 1])
        (self.root / "labelmap.txt").write_text("background\n")
        with self.assertRaisesRegex(LabError, "labelmap.txt: give each class a line"):
            self.read("voc", self.root, "train")

    def test_is_downloaded_into_its_own_folder_alone(self):
        with mock.patch.object(annotated, "download") as download:
            SOURCES["voc"].prepare(self.root)
            download.assert_not_called()
            with mock.patch.object(annotated, "DATA_ROOT", self.root):
                SOURCES["voc"].prepare(self.root)
        download.assert_called_once_with("VOCSegmentation", "VOCdevkit", "street", self.root)


class FolderTest(Folder):
    def test_names_and_splits(self):
        make_folder(self.root, {"train": 10})
        split, said = self.read("folder", self.root, "val", val_share=0.2)
        self.assertEqual(split.classes, ("kind 0", "kind 1", "kind 2"))
        self.assertIn("2 pictures of train are held out", said)
        rest, _ = self.read("folder", self.root, "train", val_share=0.2)
        self.assertEqual(len({*split.paths, *rest.paths}), 10)
        self.assertEqual(len(rest.paths), 8)

    def test_films_are_held_out_whole(self):
        for film in range(4):
            for k in range(5):
                for place, pixels in (("images", np.zeros((6, 8, 3))), ("labels", np.eye(6, 8))):
                    save(self.root / "train" / place / f"{film}TP_{30 * k:06d}.png", pixels)
        names = [
            {path.name[:3] for path in self.read("folder", self.root, mode)[0].paths}
            for mode in ("train", "val")
        ]
        self.assertEqual([len(films) for films in names], [3, 1])
        self.assertFalse(set.intersection(*names))

    def test_side_by_side_without_names(self):
        for name, number in (("a", 0), ("b", 4)):
            save(self.root / "test" / f"{name}.jpg", np.zeros((6, 8, 3)))
            save(self.root / "test" / f"{name}.png", np.full((6, 8), number))
        split, _ = self.read("folder", self.root, "test")
        self.assertEqual([path.name for path in split.paths], ["a.jpg", "b.jpg"])
        self.assertEqual(split.classes, ("0", "1", "2", "3", "4"))

    def test_layouts(self):
        """Names of folders and of files, and no split at all: the same pictures and labels."""
        for pictures, labels, mark in (
            ("train/images", "train/masks", ""), ("images/train", "masks/train", ""),
            ("train", "train", "_mask"), ("Images", "Masks", "_mask"), ("imgs", "labels", ""),
            (".", ".", "_mask"), ("training/image", "training/label", "_L"),
            ("images/cam 1", "annotations/cam 1", ""), ("train", "train_masks", "_mask"),
            ("images", "annotations/trimaps", ""),
        ):  # fmt: skip
            for ending in (".png", ".bmp"):
                with self.subTest(pictures, ending=ending), tempfile.TemporaryDirectory() as place:
                    root = Path(place)
                    for k in range(4):
                        save(root / pictures / f"{k} b.png", np.full((6, 8, 3), k))
                        save(root / labels / f"{k} b{mark}{ending}", np.full((6, 8), k))
                    train, _ = self.read("folder", root, "train", val_share=0.25)
                    val, said = self.read("folder", root, "val", ["0", "1", "2", "3"], 0.25)
                    self.assertEqual((len(train.paths), len(val.paths)), (3, 1))
                    self.assertIn("held out", said)
                    for split in (train, val):
                        for path, own in zip(split.paths, split.labels, strict=True):
                            self.assertEqual(path.name, f"{own[0, 0]} b.png")

    def test_classes_of_roboflow(self):
        for k in range(2):
            save(self.root / "test" / f"{k}_jpg.rf.7.jpg", np.zeros((6, 8, 3)))
            save(self.root / "test" / f"{k}_jpg.rf.7_mask.png", np.full((6, 8), k))
        table = self.root / "test" / "_classes.csv"
        table.write_text("Pixel Value, Class\n0, background\n1, a cat\n")
        self.assertEqual(self.read("folder", self.root, "test")[0].classes, ("background", "a cat"))
        table.write_text("Pixel Value, Class\n1, a cat\n")
        with self.assertRaisesRegex(LabError, "_classes.csv: give each class a line"):
            self.read("folder", self.root, "test")

    def test_a_number_that_train_has_not(self):
        """Where nothing names the classes, train counts them; what to do is said."""
        for mode, number in (("train", 1), ("val", 2)):
            save(self.root / mode / "a.jpg", np.zeros((6, 8, 3)))
            save(self.root / mode / "a.png", np.full((6, 8), number))
        with self.assertRaisesRegex(LabError, "labels class 2.* name all of them in classes.txt"):
            self.read("folder", self.root, "val", ["0", "1"])

    def test_classes_without_a_pixel(self):
        make_folder(self.root, {"train": 2}, classes=2)
        (self.root / "classes.txt").write_text("a\nb\nc\n")
        split, _ = self.read("folder", self.root, "train", val_share=0)
        self.assertEqual(data.absent_classes(split), ["c"])
        split.labels[0][0, 1] = 2  # a single pixel, between those that shares are counted of
        self.assertEqual(data.absent_classes(split), [])

    def test_valid(self):
        for name in ("train", "valid"):
            save(self.root / name / "images" / "a.jpg", np.zeros((6, 8, 3)))
            save(self.root / name / "masks" / "a.png", np.ones((6, 8)))
        val, said = self.read("folder", self.root, "val", ["0", "1"])
        self.assertEqual((len(val.paths), said), (1, ""))

    def test_folders_of_one_name_in_both(self):
        """Of pictures in folders, each has the label of its own folder, and none another's."""
        for place, number in (("one", 1), ("two", 2)):
            save(self.root / "test" / "images" / place / "0.png", np.full((6, 8, 3), number))
            save(self.root / "test" / "masks" / place / "0_mask.png", np.full((6, 8), number))
        save(self.root / "test" / "images" / "three" / "0.png", np.zeros((6, 8, 3)))
        split, said = self.read("folder", self.root, "test")
        self.assertEqual([path.parent.name for path in split.paths], ["one", "two"])
        self.assertEqual([labels[0, 0] for labels in split.labels], [1, 2])
        self.assertIn("images/three/0.png (no 0.png)", said)

    def test_a_picture_is_not_its_own_label(self):
        save(self.root / "train" / "a.png", np.zeros((6, 8)))
        with self.assertRaisesRegex(LabError, "holds no labels of train"):
            self.read("folder", self.root, "train")

    def test_labels_that_are_blurred(self):
        for name in "ab":
            save(self.root / "test" / "images" / f"{name}.jpg", np.zeros((6, 8, 3)))
        save(self.root / "test" / "masks" / "a.png", np.zeros((6, 8)))
        save(self.root / "test" / "masks" / "b.jpg", np.zeros((6, 8)))
        split, said = self.read("folder", self.root, "test")
        self.assertEqual([path.name for path in split.paths], ["a.jpg"])
        self.assertIn("b.jpg blurs its numbers; save labels as PNG", said)

    def test_classes_from_windows(self):
        (self.root / "classes.txt").write_bytes("\ufeffwet ground\r\nice\r\n".encode())
        save(self.root / "train" / "a.jpg", np.zeros((1, 2, 3)))
        save(self.root / "train" / "a.png", [[1, 0]])
        self.assertEqual(self.read("folder", self.root, "train")[0].classes, ("wet ground", "ice"))

    def test_colours_of_its_own(self):
        (self.root).mkdir(exist_ok=True)
        (self.root / "classes.txt").write_text("wet ground 1 2 3\nice 200 100 50\n")
        save(self.root / "train" / "a.jpg", np.zeros((1, 2, 3)))
        save(self.root / "train" / "a.png", [[(200, 100, 50), (1, 2, 3)]])
        split, _ = self.read("folder", self.root, "train")
        self.assertEqual(split.classes, ("wet ground", "ice"))
        self.assertEqual(split.labels[0].tolist(), [[1, 0]])
        for text in ("", "a 1 2 3\nb\n", "a\na\n"):
            (self.root / "classes.txt").write_text(text)
            with self.assertRaisesRegex(LabError, "classes.txt: give"):
                self.read("folder", self.root, "train")

    def test_colours_without_a_palette(self):
        """Names alone do not say which colour is which."""
        save(self.root / "train" / "a.jpg", np.zeros((1, 2, 3)))
        save(self.root / "train" / "a.png", [[(0, 0, 0), (128, 0, 0)]])
        for text in (None, "ground\nice\n"):
            if text:
                (self.root / "classes.txt").write_text(text)
            with self.assertRaisesRegex(LabError, "by colours, and nothing says"):
                self.read("folder", self.root, "train")

    def test_masks_of_black_and_white(self):
        """0 and 255, where there is nothing else, are two classes, in every split and of any name.

        Else 255 is what is not labelled.
        """
        white = np.zeros((6, 8), np.uint8)
        white[:, 3:] = 255
        for mode, label in (("train", white), ("val", np.full((6, 8), 255)), ("test", 0 * white)):
            save(self.root / mode / "a.jpg", np.zeros((6, 8, 3)))
            save(self.root / mode / "a.png", label)
        split, said = self.read("folder", self.root, "train")
        self.assertEqual(split.classes, ("0", "255"))
        np.testing.assert_array_equal(split.labels[0], white // 255)
        self.assertIn("masks of 0 and 255 alone are read as 0 and 255", said)
        for mode, number in (("val", 1), ("test", 0)):
            split, _ = self.read("folder", self.root, mode, ("0", "255"))
            self.assertEqual(np.unique(split.labels[0]).tolist(), [number])
        (self.root / "classes.txt").write_text("ground\ncat\n")
        split, said = self.read("folder", self.root, "train")
        np.testing.assert_array_equal(split.labels[0], white // 255)
        self.assertIn("ground and cat", said)
        save(self.root / "train" / "a.png", np.where(np.arange(8) == 0, 1, white))
        split, said = self.read("folder", self.root, "train")
        self.assertEqual((np.unique(split.labels[0]).tolist(), said), ([0, 1, IGNORED], ""))

    def test_pictures_are_no_labels(self):
        """A PNG is the label of a picture of its name alone; of itself it is not."""
        for name in ("a", "b", "c"):
            save(self.root / "train" / f"{name}.png", RNG.integers(0, 200, (6, 8)))
        with self.assertRaisesRegex(LabError, "holds no labels of train"):
            self.read("folder", self.root, "train")
        save(self.root / "train" / "b.jpg", np.zeros((6, 8, 3)))
        save(self.root / "train" / "b.PNG", np.arange(48).reshape(6, 8) % 2)
        (self.root / "train" / "b.png").unlink()
        with mock.patch.object(annotated, "find_listing", lambda r, f, m, v: (r(f, m), False)):
            split, said = self.read("folder", self.root, "train")
        self.assertEqual([path.name for path in split.paths], ["b.jpg"])
        self.assertEqual(split.classes, ("0", "1"))
        self.assertIn("left out 2 of 3 files: a.png (no label image of its name beside it)", said)

    def test_numbers_with_gaps_are_said(self):
        save(self.root / "train" / "a.jpg", np.zeros((1, 2, 3)))
        save(self.root / "train" / "a.png", [[3, 9]])
        split, said = self.read("folder", self.root, "train")
        self.assertEqual(len(split.classes), 10)
        self.assertIn("10 classes by their numbers, 8 of them nowhere", said)

    def test_large_pictures_are_shrunk_with_their_labels(self):
        labels = np.zeros((20, 2048), np.uint8)
        labels[:, 1024:] = 7
        save(self.root / "train" / "a.jpg", np.repeat(20 * labels[:, :, None], 3, 2))
        save(self.root / "train" / "a.png", labels)
        split, _ = self.read("folder", self.root, "train")
        self.assertEqual(split.pictures[0].shape, (10, 1024, 3))
        np.testing.assert_array_equal(split.labels[0], labels[::2, ::2])

    def test_turned_by_exif(self):
        """Labels of the size that is stored are used on what is stored, and that is said."""
        make_folder(self.root, {"test": 3})
        exif = Image.Exif()
        exif[0x0112] = 6
        for name in ("00.png", "01.png"):
            picture = self.root / "test" / "images" / name
            Image.open(picture).save(picture, exif=exif)
        upright = self.root / "test" / "labels" / "01.png"
        Image.open(upright).transpose(Image.Transpose.ROTATE_270).save(upright)
        split, said = self.read("folder", self.root, "test")
        self.assertEqual([labels.shape for labels in split.labels], [(40, 48), (48, 40), (40, 48)])
        self.assertIn("1 picture (00.png) used as stored", said)
        with mock.patch("lab.decoding.CACHE_BUDGET", 1):
            unkept, _ = self.read("folder", self.root, "test")
        for each in (split, unkept):
            dataset = data.SegmentationDataset(each)
            for index, labels in enumerate(split.labels):  # brightness is the label
                known = labels != IGNORED
                shown = dataset.picture(index)[..., 0] // 80
                np.testing.assert_array_equal(shown[known], labels[known])

    def test_too_large_for_memory(self):
        make_folder(self.root, {"train": 3})
        kept, _ = self.read("folder", self.root, "train")
        with mock.patch("lab.decoding.CACHE_BUDGET", 2 * 40 * 48 * 3 - 1):
            split, said = self.read("folder", self.root, "train")
        self.assertTrue(split.pictures is None)
        self.assertIn("read from disk batch by batch", said)
        for one, other in zip(make_loader(kept, 3), make_loader(split, 3), strict=True):
            for a, b in zip(one, other, strict=True):
                self.assertTrue(torch.equal(a, b))

    def test_shares(self):
        labels = [np.zeros((8, 8), np.uint8), np.full((8, 8), 1, np.uint8)]
        labels[1][:, 4:] = IGNORED
        split = data.Split(("a", "b", "c"), [Path()] * 2, None, labels)
        np.testing.assert_allclose(class_shares(split), [2 / 3, 1 / 3, 0])


# ---------------------------------------------------------------- windows


class WindowTest(unittest.TestCase):
    windows = Windows(size=(64, 96), zoom=(0.5, 2.0))

    def draws(self, count):
        return np.random.default_rng(2).random((count, DRAWS)).tolist()

    def test_windows_lie_within(self):
        """Parts within the picture, what is shown of them within the window, at one scale."""
        zooms, full = [], 0
        for size in ((70, 100), (200, 300), (30, 31)):
            for draws in self.draws(100):
                chosen = choose_window(size, self.windows, draws)
                (left, top, width, height), (tall, wide) = chosen.region, chosen.size
                self.assertTrue(0 <= left <= left + width <= size[1])
                self.assertTrue(0 <= top <= top + height <= size[0])
                down, right = chosen.corner
                self.assertTrue(0 <= down <= down + tall <= 64 and 0 <= right <= right + wide <= 96)
                # Whatever is not full of the window is all of the picture.
                self.assertTrue(height == size[0] or tall == 64)
                self.assertTrue(width == size[1] or wide == 96)
                zooms.append(math.sqrt(tall / height * wide / width))
                self.assertLess(abs(math.log(tall / height / (wide / width))), 0.25)
                full += (tall, wide) == (64, 96)
        self.assertTrue(0.47 < min(zooms) < 0.6 and 1.7 < max(zooms) < 2.1)
        self.assertGreater(full, 50)

    def test_labels_move_with_their_pixels(self):
        """A picture of the labels' own values: after any cut, both agree but at edges."""
        labels = np.kron(RNG.integers(0, 3, (6, 8)), np.ones((20, 20))).astype(np.uint8)
        picture = np.repeat(100 * labels[:, :, None], 3, 2)
        mirrored = 0
        for draws in self.draws(60):
            chosen = choose_window(labels.shape, self.windows, draws)
            mirrored += chosen.mirrored
            pixels, moved = cut_window(
                *map(torch.from_numpy, (picture, labels)), chosen, self.windows.size
            )
            self.assertEqual((pixels.shape, moved.shape), ((3, 64, 96), (64, 96)))
            self.assertTrue(set(moved.unique().tolist()) <= {0, 1, 2, IGNORED})
            known = moved != IGNORED
            same = (pixels[0][known].float() / 100).round() == moved[known]
            self.assertGreater(same.float().mean(), 0.93)
        self.assertTrue(15 < mirrored < 45)

    def test_nearest_by_a_naive_loop(self):
        labels = RNG.integers(0, 5, (37, 53)).astype(np.uint8)
        picture = np.zeros((37, 53, 3), np.uint8)
        chosen = Cut(Window(3, 5, 41, 22), (30, 60), (0, 0), False)
        _, moved = cut_window(*map(torch.from_numpy, (picture, labels)), chosen, (30, 60))
        for y in range(30):
            for x in range(60):
                row, column = 5 + int((y + 0.5) * 22 / 30), 3 + int((x + 0.5) * 41 / 60)
                self.assertEqual(int(moved[y, x]), labels[row, column])

    def test_beyond_the_picture_nothing_is_asked(self):
        labels, picture = np.ones((10, 12), np.uint8), np.full((10, 12, 3), 200, np.uint8)
        chosen = choose_window((10, 12), replace(self.windows, vary=False), [0.5] * DRAWS)
        pixels, moved = cut_window(*map(torch.from_numpy, (picture, labels)), chosen, (64, 96))
        self.assertEqual(int((moved == 1).sum()), 120)
        self.assertEqual(int((moved == IGNORED).sum()), 64 * 96 - 120)
        self.assertEqual(pixels[:, moved == 1].unique().tolist(), [200])

    def test_without_augmentation(self):
        """Windows as they are: not magnified, not mirrored, pixels to the bit."""
        picture = RNG.integers(0, 256, (100, 120, 3)).astype(np.uint8)
        labels = RNG.integers(0, 5, (100, 120)).astype(np.uint8)
        for draws in self.draws(10):
            chosen = choose_window((100, 120), replace(self.windows, vary=False), draws)
            pixels, moved = cut_window(*map(torch.from_numpy, (picture, labels)), chosen, (64, 96))
            left, top, width, height = chosen.region
            part = slice(top, top + height), slice(left, left + width)
            np.testing.assert_array_equal(pixels.permute(1, 2, 0), picture[part])
            np.testing.assert_array_equal(moved, labels[part])

    def test_camera(self):
        """Within range, each image otherwise, the same from a seed, and nothing moves."""
        plain = torch.linspace(-0.8, 0.8, 48).expand(6, 3, 32, 48)
        one, two = (vary_camera(plain.clone(), torch.Generator().manual_seed(3)) for _ in range(2))
        self.assertTrue(torch.equal(one, two))
        self.assertTrue(one.min() >= -1 and one.max() <= 1)
        self.assertEqual(len({tuple(image[0, 0, :9].tolist()) for image in one}), 6)
        rising = one.mean((1, 2)).diff(dim=1) > -0.05
        self.assertGreater(rising.float().mean(), 0.95)
        self.assertFalse(torch.equal(one[:, 0], one[:, 2]))  # the colour of the light

    def test_other_colours(self):
        """What is grey stays so; where there are none, all are grey. Light comes after that."""
        tint = other_colours(200, torch.Generator().manual_seed(3))
        torch.testing.assert_close(tint.sum(2), torch.ones(200, 3))
        grey = (tint == tint[:, :1, :1]).all((1, 2))
        self.assertAlmostEqual(float(grey.float().mean()), GREY_SHARE, delta=0.08)
        images = 0.4 * torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        at_once = vary_light(images, torch.Generator().manual_seed(2), tint)
        mixed = torch.einsum("nij,njhw->nihw", tint, images)
        after = vary_light(mixed, torch.Generator().manual_seed(2))
        torch.testing.assert_close(at_once, after)


class LoaderTest(Folder):
    def setUp(self):
        super().setUp()
        self.split, _ = self.read("folder", make_folder(self.root, {"train": 5}), "train",
                                  val_share=0.2)  # fmt: skip

    def test_training_batches(self):
        windows = Windows(size=(32, 64), each=3)
        loader = make_loader(self.split, 4, windows, seed=5)
        self.assertEqual(len(loader.dataset), 3 * len(self.split.paths))
        first = [batch for batch in loader]
        images, labels = first[0]
        self.assertEqual((images.shape, labels.shape), ((4, 3, 32, 64), (4, 32, 64)))
        self.assertEqual((images.dtype, labels.dtype), (torch.float32, torch.int64))
        again = [batch for batch in make_loader(self.split, 4, windows, seed=5)]
        for (a, b), (c, d) in zip(first, again, strict=True):
            self.assertTrue(torch.equal(a, c) and torch.equal(b, d))
        other = next(iter(make_loader(self.split, 4, windows, seed=6)))
        self.assertFalse(torch.equal(images, other[0]))
        self.assertFalse(torch.equal(first[0][0], next(iter(loader))[0]))  # the next epoch's

    def test_first_epochs_are_coarse(self):
        """Windows of a quarter of the pixels show as much; whoever makes the batches knows when."""
        windows = Windows((32, 64), zoom=(1.0, 1.0), stretch=0.0, coarse=2)
        self.assertEqual((windows.halved().size, windows.halved().zoom), ((16, 32), (0.5, 0.5)))
        for workers in (0, 1):
            loader = make_loader(self.split, 4, windows, workers)
            sizes = [next(iter(loader))[1].shape[1:] for _ in range(3)]
            self.assertEqual(sizes, [(16, 32), (16, 32), (32, 64)])
        plain = make_loader(self.split, 4, replace(windows, vary=False))
        self.assertEqual(next(iter(plain))[1].shape[1:], (32, 64))

    def test_camera_varies_in_training_alone(self):
        """Without `vary`, every value is a byte's."""
        for vary in (False, True):
            images, _ = next(iter(make_loader(self.split, 4, Windows((32, 64), vary=vary))))
            values = (images + 1) * 127.5
            self.assertEqual(torch.allclose(values, values.round(), atol=1e-3), not vary)

    def test_whole_pictures_of_several_sizes(self):
        pictures = [np.full((4, 6, 3), 255, np.uint8), np.zeros((5, 3, 3), np.uint8)]
        labels = [np.ones((4, 6), np.uint8), np.zeros((5, 3), np.uint8)]
        split = data.Split(("a", "b"), [Path("a"), Path("b")], pictures, labels)
        ((images, marked),) = make_loader(split, 2)
        self.assertEqual((images.shape, marked.shape), ((2, 3, 5, 6), (2, 5, 6)))
        self.assertTrue((images[0, :, :4] == 1).all() and (images[0, :, 4:] == 0).all())
        self.assertTrue((images[1, :, :, :3] == -1).all() and (images[1, :, :, 3:] == 0).all())
        self.assertEqual((marked == IGNORED).sum().item(), 6 + 15)
        self.assertTrue((marked[0, :4] == 1).all() and (marked[1, :, :3] == 0).all())


# ---------------------------------------------------------------- what a user is told


class RefusedTest(ScriptCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)
        self.root = Path(self.temp.name)

    def train(self, *flags):
        return script_here("train.py", "--task", "segmentation", "--no_show", "--ckpt_path",
                           self.root / "run", *flags)  # fmt: skip

    def test_labels(self):
        make_folder(self.root, {"train": 4, "val": 1}, classes=3)
        path = save(self.root / "val" / "labels" / "00.png", np.full((40, 48), 3))
        done = self.train("--dataset", "folder", "--data_root", self.root)
        self.assert_refused(done, 1, path, "labels class 3, but the 3 classes are 0 to 2")
        self.assertFalse((self.root / "run").exists())

    def test_folders(self):
        self.assert_refused(self.train("--dataset", "folder"), 2, "needs --data_root")
        self.assert_refused(self.train("--data_root", self.root / "no"), 1, "no data folder")
        done = self.train("--data_root", self.root)
        self.assert_refused(done, 1, "holds no labels of train as --dataset street has them")

    def test_networks(self):
        self.assert_refused(self.train("--network", "u_net"), 2, "res_unet, fcn_32s, fcn_16s")


if __name__ == "__main__":
    unittest.main()
