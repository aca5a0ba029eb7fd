"""Loader, cache, bad files, augmentation; saves visualized/augmentation.jpg."""

import io
import math
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import zlib
from contextlib import redirect_stdout
from itertools import zip_longest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageFile
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.utils import make_grid

import datasets
from datasets import get_data_loader, make_loader
from lab import augmentation, decoding, image_folder
from lab.augmentation import augment_batch
from lab.batches import BatchSampler, check_count
from lab.console import LabError
from lab.images import Preprocess, open_image
from tests.support import CLASSES, PROJECT, make_images


class TemporaryData(unittest.TestCase):
    """A small data set, and a cache of its own."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = make_images(Path(holder.name) / "set", {"train": 11, "val": 3, "test": 3}, 40)
        patch = mock.patch.object(image_folder, "CACHE_FOLDER", Path(holder.name) / "cache")
        patch.start()
        self.addCleanup(patch.stop)

    def load(self, mode="train", batch_size=8, **options):
        """Return a loader and what it said."""
        said = io.StringIO()
        with redirect_stdout(said):
            loader = get_data_loader(
                self.root, mode, options.pop("size", 32), batch_size, **options
            )
        return loader, said.getvalue()


class LoaderTest(TemporaryData):
    def test_contract(self):
        """Shapes, types and ranges of a batch; lengths in batches and in images."""
        loader, _ = self.load(size=(32, 32))
        images, labels = next(iter(loader))
        self.assertEqual(tuple(images.shape), (8, 3, 32, 32))
        self.assertEqual((images.dtype, labels.dtype), (torch.float32, torch.int64))
        self.assertGreaterEqual(images.min(), -1)
        self.assertLessEqual(images.max(), 1)
        self.assertEqual((len(loader), len(loader.dataset)), (5, 33))
        self.assertIsInstance(loader, torch.utils.data.DataLoader)
        self.assertEqual(loader.dataset.classes, CLASSES)

    def test_equals_torchvision(self):
        """Test images are torchvision's ImageFolder, Resize, ToTensor, Normalize, in its order."""
        steps = [transforms.Resize((32, 32)), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
        for name in ("b/deeper/still", "a"):  # of a class, to any depth
            (self.root / "test" / "green" / name).mkdir(parents=True)
            copy = self.root / "test" / "green" / name / "copy.png"
            shutil.copy(self.root / "test" / "red" / "000.png", copy)
        reference = ImageFolder(str(self.root / "test"), transforms.Compose(steps))
        self.assertEqual(len(reference), 11)
        (self.root / "test" / "green" / "b" / "back").symlink_to(self.root / "test" / "green")
        loader, _ = self.load("test", batch_size=4, augment=True)
        images = torch.cat([batch for batch, _ in loader])
        torch.testing.assert_close(images, torch.stack([image for image, _ in reference]))
        labels = torch.cat([labels for _, labels in loader])
        self.assertEqual(labels.tolist(), [label for _, label in reference])

    def test_workers_change_nothing(self):
        """Two worker processes yield the same shuffled, augmented batches as none."""
        here, _ = self.load(augment=True, seed=3)
        there, _ = self.load(augment=True, seed=3, num_workers=2)
        for (a, b), (c, d) in zip(here, there, strict=True):
            self.assertTrue(torch.equal(a, c) and torch.equal(b, d))

    def test_num_workers(self):
        """As many processes as asked for read the images; 0: this one does."""
        images = torch.zeros(8, 4, 4, 3, dtype=torch.uint8)
        split = datasets.Split(("only",), [], torch.zeros(8, dtype=torch.int64), images)

        def write_worker(images, generator):
            worker = torch.utils.data.get_worker_info()
            return torch.full_like(images, -1 if worker is None else worker.id)

        for workers, expected in ((0, {-1}), (2, {0, 1})):
            loader = make_loader(split, Preprocess((4, 4)), 2, workers, augment=write_worker)
            self.assertEqual({int(x[0, 0, 0, 0]) for x, _ in loader}, expected)
        loader, _ = self.load(num_workers=2)
        self.assertEqual(loader.num_workers, 2)

    def test_only_train_is_shuffled(self):
        """Another order each epoch and seed, every image once; val and test in their own."""
        for mode, shuffled in (("train", True), ("val", False), ("test", False)):
            loader, _ = self.load(mode)
            own = list(range(len(loader.dataset)))
            orders = [sum(loader.batch_sampler, []) for _ in range(3)]
            loader, _ = self.load(mode, seed=1)
            orders.append(sum(loader.batch_sampler, []))
            self.assertEqual([sorted(order) for order in orders], [own] * 4)
            distinct = {tuple(order) for order in [own, *orders]}
            self.assertEqual(len(distinct), 5 if shuffled else 1, mode)

    def test_every_batch_is_varied_by_a_seed_of_its_own(self):
        """In each epoch, of each run, in each process; the same again when asked for again."""
        seeds = [
            [batch.seed for batch in sampler]
            for run in (0, 1)
            for rank in (0, 1)
            for sampler in [BatchSampler(40, 10, False, run, rank, 2)]
            for _ in range(3)
        ]
        self.assertEqual(len(set(sum(seeds, []))), 2 * 2 * 3 * 4)
        again = BatchSampler(40, 10, False, 1, 1, 2)
        again.epoch = 3
        self.assertEqual([batch.seed for batch in again], seeds[-1])

    def test_epochs_differ_and_repeat(self):
        """Each epoch shuffles anew; setting the epoch brings its batches back."""
        loader, _ = self.load(augment=True)
        first, second = [torch.cat([x for x, _ in loader]) for _ in range(2)]
        self.assertFalse(torch.equal(first, second))
        self.assertFalse(torch.equal(first.sort(0).values, second.sort(0).values))  # varied anew
        loader.batch_sampler.epoch = 1
        self.assertTrue(torch.equal(first, torch.cat([x for x, _ in loader])))

    def test_start_skips_images(self):
        """After `start` images, an epoch is the rest of the whole one, augmentation included."""
        loader, _ = self.load(augment=True)
        whole = [images for images, _ in loader]
        loader.batch_sampler.epoch, loader.batch_sampler.start = 1, 24
        rest = [images for images, _ in loader]
        self.assertEqual([len(images) for images in rest], [7, 2])
        for a, b in zip(whole[3:], rest, strict=True):
            self.assertTrue(torch.equal(a, b))
        self.assertEqual(len([images for images, _ in loader]), 5)  # the next one is whole again

    def test_what_is_left_of_any_epoch(self):
        """Wherever an epoch stops: by the same batch size the same batches, by another all."""
        for world_size in (1, 2, 3):
            for count in range(2 * world_size, 40):
                for size in (2 * world_size, 7, 16):
                    batches = self.batches(count, size, world_size)
                    done = 0
                    for index, batch in enumerate(batches):
                        rest = self.batches(count, size, world_size, done)
                        self.assertEqual(rest, batches[index:])
                        other = self.batches(count, size + 3, world_size, done)
                        self.assertEqual(sum(other, []), sum(rest, []))
                        done += len(batch)

    def batches(self, count, size, world_size, start=0):
        """Return the batches left after `start` images, those of all processes put together."""
        shares = []
        for rank in range(world_size):
            sampler = BatchSampler(count, size, True, 0, rank, world_size)
            left, sampler.start = sampler.batches_left(start), start
            shares.append(list(sampler))
            self.assertEqual(left, len(shares[-1]))
            self.assertGreaterEqual(min(map(len, shares[-1])), 2)  # else batch norm could not train
        return [
            [index for turn in zip_longest(*parts) for index in turn if index is not None]
            for parts in zip(*shares, strict=True)
        ]

    def test_an_epoch_taken_up_by_more_processes(self):
        """Too few images left for two a process: some of those done are seen again."""
        sampler = BatchSampler(20, 8, True, 0, 0, 3)
        sampler.start = 18
        self.assertEqual([len(batch) for batch in sampler], [2])

    def test_too_few_images_to_train_on(self):
        check_count(2, 1, normalises=True)
        check_count(3, 3, normalises=False)
        with self.assertRaisesRegex(LabError, "^1 training image is too few: batch norm .* 2$"):
            check_count(1, 1, normalises=True)
        with self.assertRaisesRegex(LabError, "^5 training images are too few: .* at least 6$"):
            check_count(5, 3, normalises=True)
        with self.assertRaisesRegex(LabError, "^2 training images are too few: each process .* 3$"):
            check_count(2, 3, normalises=False)

    def test_shards_make_up_the_batch(self):
        """The batches of two processes together are those of one; lengths count whole batches."""
        one = list(BatchSampler(33, 8, True, 0, 0, 1))
        self.assertEqual(len(BatchSampler(33, 8, True, 0, 0, 1)), 5)
        halves = [list(BatchSampler(33, 8, True, 0, rank, 2)) for rank in range(2)]
        self.assertEqual([len(batch) for batch in halves[0]], [4, 4, 4, 3, 2])
        self.assertEqual([len(batch) for batch in halves[1]], [4, 4, 4, 2, 2])
        borrowed = [a + b for a, b in zip(*halves, strict=True)]
        self.assertEqual(sorted(sum(one, [])), sorted(sum(borrowed, [])))
        self.assertEqual([set(batch) for batch in one[:3]], [set(batch) for batch in borrowed[:3]])

    def test_no_training_batch_of_one(self):
        """Batch norm cannot train on one image: no batch holds only one, and none is lost."""
        for count in range(2, 70):
            for batch_size in (2, 3, 4, 8, 32):
                batches = list(BatchSampler(count, batch_size, True, 0, 0, 1))
                self.assertGreaterEqual(min(map(len, batches)), 2)
                self.assertEqual(sorted(sum(batches, [])), list(range(count)))

    def test_beyond_the_memory_budget(self):
        """Too many images for memory are read from disk, are the same, and it is said."""
        cached, _ = self.load(seed=1)
        with mock.patch.object(decoding, "CACHE_BUDGET", 1000):
            streamed, said = self.load(seed=1, num_workers=1)
        self.assertIn("read from disk", said)
        self.assertIsNone(streamed.dataset.images)
        for (a, b), (c, d) in zip(cached, streamed, strict=True):
            self.assertTrue(torch.equal(a, c) and torch.equal(b, d))


class CacheTest(TemporaryData):
    def test_second_run_decodes_nothing(self):
        """With nothing changed, no image is opened again."""
        first, _ = self.load()
        with mock.patch.object(image_folder, "open_image", side_effect=AssertionError):
            second, _ = self.load()
        self.assertTrue(torch.equal(first.dataset.images, second.dataset.images))

    def test_rebuilt_on_change(self):
        """A file changed, added, removed or renamed shows in the next run."""
        self.load()
        target = self.root / "train" / "red" / "000.png"
        Image.new("RGB", (32, 32), "white").save(target)
        os.utime(target, ns=(1, 1))
        self.assertEqual(self._image("red", "000.png").min(), 255)
        Image.new("RGB", (32, 32), "white").save(self.root / "train" / "red" / "new.png")
        self.assertEqual(len(self.load()[0].dataset), 34)
        target.unlink()
        self.assertEqual(len(self.load()[0].dataset), 33)

    def _image(self, name, file):
        dataset = self.load()[0].dataset
        index = dataset.split.paths.index(self.root / "train" / name / file)
        return dataset.pixels([index])

    def test_key_holds_name_size_and_time(self):
        """A file is read again when one of them alone has changed, and not otherwise."""
        folder = self.root / "train" / "green"
        bitmaps = {}
        for name, colour, side in (("a", "white", 40), ("b", "black", 40), ("c", "black", 20)):
            bitmaps[name] = folder / f"{name}.bmp"
            Image.new("RGB", (side, side), colour).save(bitmaps[name])
        white, black, small = (path.read_bytes() for path in bitmaps.values())
        bitmaps["b"].unlink(), bitmaps["c"].unlink()
        path = bitmaps["a"]

        def change(body, modified):
            path.write_bytes(body)
            os.utime(path, ns=(modified, modified))

        change(white, 1)
        self.assertEqual(self._image("green", "a.bmp").max(), 255)
        change(black, 1)  # the same name, size and time
        self.assertEqual(self._image("green", "a.bmp").max(), 255)
        change(black, 2)
        self.assertEqual(self._image("green", "a.bmp").max(), 0)
        change(white, 2)
        change(small, 2)
        self.load()
        change(white, 2)
        self.assertEqual(self._image("green", "a.bmp").max(), 255)
        twin = path.with_stem("b")
        twin.write_bytes(black)
        os.utime(twin, ns=(2, 2))
        self.assertEqual(self._image("green", "b.bmp").max(), 0)
        path.rename(folder / "c.bmp")  # b, c for a, b: sizes and times in the same order
        self.assertEqual(self._image("green", "c.bmp").min(), 255)

    def test_key_holds_the_class(self):
        """Classes whose order is another after a renaming are read again."""
        for name in CLASSES:
            shutil.rmtree(self.root / "train" / name)
        for name, colour in (("blue", "black"), ("green", "white")):
            path = self.root / "train" / name / "a.bmp"
            path.parent.mkdir()
            Image.new("RGB", (8, 8), colour).save(path)
            os.utime(path, ns=(1, 1))
        self.assertEqual(self._image("blue", "a.bmp").max(), 0)
        (self.root / "train" / "blue").rename(self.root / "train" / "navy")
        self.assertEqual(self._image("navy", "a.bmp").max(), 0)

    def test_key_holds_the_preprocessing(self):
        for _ in range(2):
            self.assertEqual(self.load(size=16)[0].dataset.images.shape[1:], (16, 16, 3))
            cropped = datasets.read_split(self.root, "train", Preprocess((16, 16), resize=40))
            self.assertFalse(torch.equal(cropped.images, self.load(size=16)[0].dataset.images))

    def test_damaged_cache_is_made_anew(self):
        """Cut, empty, a flipped byte, another file's content, a folder in its place."""
        first, _ = self.load()
        (cache,) = image_folder.CACHE_FOLDER.iterdir()
        whole = cache.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        for body in (whole[:1000], b"", flipped, b"PK\x03\x04" + bytes(100), None):
            cache.unlink()
            cache.mkdir() if body is None else cache.write_bytes(body)
            second, said = self.load()
            self.assertTrue(torch.equal(first.dataset.images, second.dataset.images))
        self.assertIn("not kept for the next run: Is a directory", said)

    def test_stale_caches_are_removed(self):
        """With the data set that they were made from, and not before."""
        self.load()
        (old,) = image_folder.CACHE_FOLDER.iterdir()
        self.load("test")
        self.assertEqual(len(list(image_folder.CACHE_FOLDER.iterdir())), 2)
        self.root = self.root.rename(self.root.parent / "renamed")
        self.load("val")
        names = {path.name for path in image_folder.CACHE_FOLDER.iterdir()}
        self.assertEqual(len(names), 1)
        self.assertNotIn(old.name, names)

    def test_what_a_killed_process_left_is_removed(self):
        self.load()
        (cache,) = image_folder.CACHE_FOLDER.iterdir()
        cache.unlink()
        leftover = cache.parent / f".{cache.name}-{2**22 + 1}"
        leftover.mkdir()
        self.load()
        self.assertEqual(list(image_folder.CACHE_FOLDER.iterdir()), [cache])

    def test_no_place_for_a_cache(self):
        """Where data/.cache is a file, images are read all the same, each time."""
        image_folder.CACHE_FOLDER.write_text("in the way")
        for _ in range(2):
            loader, said = self.load()
            self.assertEqual(len(loader.dataset), 33)
            self.assertIn("decoded images are not kept for the next run: File exists", said)


class HoldOutTest(TemporaryData):
    """Folders without val/."""

    def setUp(self):
        super().setUp()
        shutil.rmtree(self.root / "val")

    def read(self, mode, **options):
        said = io.StringIO()
        with redirect_stdout(said):
            split = datasets.read_split(self.root, mode, Preprocess(), **options)
        return split, said.getvalue()

    def test_a_share_of_each_class(self):
        """Every image of train/ is in one of both, read as it is; from the cache as from files."""
        whole = {path: image for path, image in self.images(self.load()[0].dataset.split)}
        for share, count in (({}, 1), ({"val_share": 0.3}, 3)):
            for _ in range(2):
                train, _ = self.read("train", **share)
                val, said = self.read("val", **share)
                self.assertIn(f"has no val/: {3 * count} images of train/ are held out", said)
                self.assertEqual(val.labels.bincount().tolist(), [count] * 3)
                self.assertEqual(train.labels.bincount().tolist(), [11 - count] * 3)
                both = self.images(train) + self.images(val)
                self.assertEqual(sorted(path for path, _ in both), sorted(whole))
                for path, image in both:
                    self.assertTrue(torch.equal(image, whole[path]))
                for split in (train, val):
                    names = [split.classes[label] for label in split.labels]
                    self.assertEqual(names, [path.parent.name for path in split.paths])
        self.assertEqual(len(self.read("test")[0].labels), 9)

    def images(self, split):
        return list(zip(split.paths, split.images, strict=True))

    def test_both_parts_are_kept_for_the_next_run(self):
        first = [self.read(mode)[0].images for mode in ("train", "val")]
        with mock.patch.object(image_folder, "open_image", side_effect=AssertionError):
            second = [self.read(mode)[0].images for mode in ("train", "val")]
        for a, b in zip(first, second, strict=True):
            self.assertTrue(torch.equal(a, b))

    def test_signs_stay_together(self):
        """Of names that tell track and frame, whole tracks are held out."""
        for folder in (self.root / "train").iterdir():
            for path in folder.iterdir():
                number = int(path.stem)
                prefix = "00007_" if folder.name == "red" else ""  # as Kaggle names them
                path.rename(path.with_stem(f"{prefix}{number // 3:05d}_{number % 3:05d}"))
        tracks = {}
        for mode in ("train", "val"):
            split, _ = self.read(mode, val_share=0.5)
            tracks[mode] = {(p.parent.name, p.stem[:-6]) for p in split.paths}
            self.assertEqual(len(tracks[mode]), 6)
        self.assertFalse(tracks["train"] & tracks["val"])

    def test_too_little_to_hold_out(self):
        """A class of one image keeps it for training; where all do, val/ is asked for."""
        for name in CLASSES:
            for path in list((self.root / "train" / name).iterdir())[1:]:
                path.unlink()
        with self.assertRaisesRegex(LabError, "too small to hold images out of it; add .*set/val"):
            self.read("val")
        Image.new("RGB", (9, 9)).save(self.root / "train" / "red" / "more.png")
        self.assertEqual(self.read("train")[0].labels.tolist(), [0, 1, 2])
        self.assertEqual(self.read("val")[0].labels.tolist(), [2])
        for path in (self.root / "train" / "green").iterdir():
            path.unlink()
        with self.assertRaisesRegex(LabError, "green holds no readable image"):
            self.read("train")

    def test_the_loader_takes_folders_as_they_are(self):
        """`get_data_loader` promises all of `train/*`; nothing is taken from it."""
        self.assertEqual(len(self.load("train")[0].dataset), 33)
        with self.assertRaisesRegex(LabError, "has no val/"):
            self.load("val")

    def test_a_val_folder_is_taken_as_it_is(self):
        shutil.copytree(self.root / "test", self.root / "val")
        self.assertEqual(len(self.read("train", val_share=0.5)[0].labels), 33)
        split, said = self.read("val", val_share=0.5)
        self.assertEqual((len(split.labels), said), (9, ""))

    def test_no_split(self):
        """A folder a class and nothing else: a share is held out as val."""
        whole, cut = self.root / "train", []
        for mode in ("train", "val"):
            with redirect_stdout(io.StringIO()) as said:
                classes, paths, *_ = image_folder.read_images(whole, mode, Preprocess(), 0.1)
            cut.append({*paths})
            self.assertEqual(classes, CLASSES)
        self.assertIn("has no val/: 3 images of train/ are held out", said.getvalue())
        self.assertEqual((len(cut[0]), len(cut[1]), len(cut[0] & cut[1])), (30, 3, 0))
        for mode, share in (("test", 0.1), ("train", 0)):  # the loader takes folders as they are
            with self.assertRaisesRegex(LabError, f"has no {mode}/"):
                image_folder.read_images(whole, mode, Preprocess(), share)
        (whole / "papers").mkdir()
        with self.assertRaisesRegex(LabError, "has no train/"):
            image_folder.read_images(whole, "train", Preprocess(), 0.1)

    def test_pictures_and_their_labels_are_no_classes(self):
        """Those of another task, side by side."""
        for old, name in zip(CLASSES, ("images", "labels", "other"), strict=True):
            (self.root / "train" / old).rename(self.root / "train" / name)
        with self.assertRaisesRegex(LabError, "has no train/"):
            image_folder.read_images(self.root / "train", "train", Preprocess(), 0.1)

    def test_other_names_of_the_splits(self):
        """Those that other tools have, in capitals too; two names of one split are too many."""
        shutil.copytree(self.root / "test", self.root / "val")
        for old, new in (("train", "Training"), ("val", "valid"), ("test", "TEST")):
            (self.root / old).rename(self.root / new)
        for mode, count in (("train", 33), ("val", 9), ("test", 9)):
            loader, said = self.load(mode)
            self.assertEqual((len(loader.dataset), said), (count, ""))
        (self.root / "validation").mkdir()
        with self.assertRaisesRegex(LabError, "valid/ and validation/, both names of val"):
            self.load("val")
        (self.root / "validation").rmdir()
        (self.root / "valid" / "red").rename(self.root / "valid" / "pink")
        with self.assertRaisesRegex(LabError, "valid has other classes than train/"):
            self.load("val")


class BadFilesTest(TemporaryData):
    def test_named_and_left_out(self):
        """Empty, text and truncated files are named with a count; the rest is loaded."""
        folder = self.root / "train" / "blue"
        (folder / "a_empty.png").touch()
        (folder / "b_text.jpg").write_text("no picture")
        whole = (folder / "000.png").read_bytes()
        (folder / "c_cut.png").write_bytes(whole[: len(whole) // 2])
        for _ in range(2):  # from the files, then from the cache
            loader, said = self.load()
            self.assertEqual(len(loader.dataset), 33)
            self.assertIn("left out 3 of 36 files", said)
            for name in ("a_empty.png (empty file)", "b_text.jpg (not an image)", "c_cut.png"):
                self.assertIn(name, said)

    def test_what_cannot_be_loaded(self):
        """A missing split, an empty class, differing classes: one line that names it."""
        for word, spoil in {
            "train/": lambda: (self.root / "train").rename(self.root / "elsewhere"),
            "blue": lambda: [p.unlink() for p in (self.root / "train" / "blue").iterdir()],
        }.items():
            with self.subTest(word):
                self.doCleanups()
                self.setUp()
                spoil()
                with self.assertRaises(LabError) as caught:
                    self.load()
                self.assertIn(word, str(caught.exception))
                self.assertNotIn("\n", str(caught.exception))
        (self.root / "test" / "blue").rename(self.root / "test" / "yellow")
        with self.assertRaisesRegex(LabError, "lacks blue and adds yellow"):
            self.load("test")

    def test_links(self):
        """A link to a file is one; a loop of links and a link to nothing are named; folders not."""
        folder = self.root / "train" / "blue"
        (folder / "a_link.png").symlink_to(folder / "000.png")
        (folder / "b_loop.png").symlink_to(folder / "c_loop.png")
        (folder / "c_loop.png").symlink_to(folder / "b_loop.png")
        (folder / "d_gone.png").symlink_to(folder / "nothing.png")
        (folder / "e_up").symlink_to(self.root)
        (self.root / "train" / "loop").symlink_to(self.root / "train" / "loop")
        os.mkfifo(folder / "f_pipe.png")
        for _ in range(2):
            loader, said = self.load()
            self.assertEqual(len(loader.dataset), 34)
            self.assertIn("left out 3 of 37 files: blue/b_loop.png (Too many levels of", said)
            self.assertIn("blue/d_gone.png (No such file or directory)", said)

    def test_a_folder_that_cannot_be_read(self):
        """One line that names it, whichever folder it is."""
        scan = os.scandir

        def refuse(path):
            if str(path).endswith(locked):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        for locked in ("train/green", "train"):
            with (
                mock.patch.object(os, "scandir", refuse),
                mock.patch.object(
                    Path, "iterdir", lambda path: [path / entry.name for entry in refuse(path)]
                ),
                self.assertRaisesRegex(LabError, f"^cannot read .*/{locked}: Permission denied$"),
            ):
                self.load()
        self.root = self.root / ("long" * 100)
        with self.assertRaisesRegex(LabError, "^no data folder"):
            self.load()

    def test_odd_names(self):
        """Class and file names with `$`, backslashes, bytes that are no UTF-8: read and told."""
        for old, new in (("blue", b"a$b"), ("green", b"c\\d"), ("red", b"\xff\xfe")):
            folder = self.root / "train" / old
            (folder / "000.png").rename(folder / os.fsdecode(b"\xe9$\\.png"))
            folder.rename(self.root / "train" / os.fsdecode(new))
        (self.root / "train" / os.fsdecode(b"\xff\xfe/cut\xe9.png")).touch()
        for _ in range(2):
            loader, said = self.load()
            self.assertEqual(loader.dataset.classes, ("a$b", "c\\d", "\\xff\\xfe"))
            self.assertEqual(len(loader.dataset), 33)
            self.assertIn("\\xff\\xfe/cut\\xe9.png (empty file)", said)

    def test_damaged_in_any_way(self):
        """Whatever a decoder raises, the file is called damaged and left out."""
        folder = self.root / "train" / "blue"
        Image.init()
        kinds = [
            kind for kind in ("avif", "dds", "ppm", "tiff", "webp") if kind.upper() in Image.SAVE
        ]
        for kind in kinds:
            path = folder / f"whole.{kind}"
            Image.open(folder / "000.png").save(path)
            body = path.read_bytes()
            path.with_stem("cut").write_bytes(body[: len(body) // 2])
        body = bytearray((folder / "whole.dds").read_bytes())
        body[80:84] = bytes(4)  # a format of pixels that there is not
        (folder / "bad.dds").write_bytes(body)
        loader, said = self.load()
        self.assertEqual(len(loader.dataset), 33 + len(kinds))
        self.assertIn(f"left out {len(kinds) + 1} of {34 + 2 * len(kinds)} files", said)
        self.assertIn("blue/bad.dds (damaged image (", said)
        for error in (NotImplementedError("a\nkind"), IndexError(), RuntimeError("x" * 1000)):
            with (
                mock.patch.object(ImageFile.ImageFile, "load", side_effect=error),
                self.assertRaisesRegex(OSError, r"^damaged image \(.{5,100}\)$"),
            ):
                open_image(folder / "000.png")

    def test_a_file_that_cannot_be_read(self):
        """It is not called damaged: what the system says is said."""
        path, opened = self.root / "train" / "blue" / "000.png", Image.open

        def refuse(file):
            if file == path:
                raise PermissionError(13, "Permission denied", str(file))
            return opened(file)

        with mock.patch.object(Image, "open", refuse):
            _, said = self.load()
        self.assertIn("left out 1 of 33 files: blue/000.png (Permission denied)", said)

    def test_netpbm_of_another_length(self):
        """A binary PPM or PGM whose line ends were rewritten, or that is cut, is damaged."""
        path = self.root / "sign.ppm"
        rng = np.random.default_rng(0)
        colour = rng.integers(0, 256, (20, 30, 3), np.uint8)
        colour[0, :3] = 10
        grey = colour[..., 0]
        for header, pixels in (
            (b"P6\n30 20\n255\n", colour),
            (b"P6 # a comment\n30\n# 7 7\n20 255 ", colour),
            (b"P5\n30 20\n255\n", grey),
            (b"P6\n30 20\n65535\n", np.repeat(colour, 2, axis=2)),
            (b"P5\n30 20\n65535\n", np.repeat(grey, 2, axis=1)),
        ):
            with self.subTest(header):
                whole = header + pixels.tobytes()
                path.write_bytes(whole)
                expected = colour if b"P6" in header else np.stack([grey] * 3, 2)
                found = np.asarray(open_image(path).convert("RGB"))
                np.testing.assert_array_equal(found, expected)
                rewritten = whole.replace(b"\n", b"\r\n")
                for body in (rewritten, header + pixels.tobytes().replace(b"\n", b"\r\n")):
                    path.write_bytes(body)
                    with self.assertRaisesRegex(
                        OSError, r"^damaged image .*bytes long, not [\d,]+\)"
                    ):
                        open_image(path)
                path.write_bytes(whole[:-1])
                with self.assertRaisesRegex(OSError, "^damaged image"):
                    open_image(path)
        path.write_bytes(b"P3\n2 1\n255\n1 2 3\n4 5 6\n# and a long comment at the end\n")
        np.testing.assert_array_equal(open_image(path), [[[1, 2, 3], [4, 5, 6]]])

    def test_every_mode_loads_as_rgb(self):
        """Grey, palette, alpha, CMYK, one-bit and 16-bit files give the colour they show."""
        path = self.root / "image.tif"
        grey, colour = (150, 150, 150), (200, 40, 90)
        for mode, value, expected in (
            ("L", 150, grey),
            ("LA", (150, 255), grey),
            ("RGBA", (*colour, 255), colour),
            ("RGB", colour, colour),
            ("CMYK", (55, 215, 165, 0), colour),
            ("1", 1, (255, 255, 255)),
            ("I;16", 150 * 257, grey),
        ):
            with self.subTest(mode):
                Image.new(mode, (20, 20), value).save(path)
                pixels = Preprocess((8, 8)).fit(open_image(path))
                self.assertEqual(pixels.shape, (8, 8, 3))
                np.testing.assert_allclose(pixels, np.broadcast_to(expected, (8, 8, 3)), atol=1)
        Image.new("RGB", (20, 20), colour).quantize(4).save(self.root / "palette.png")
        pixels = Preprocess((8, 8)).fit(open_image(self.root / "palette.png"))
        np.testing.assert_allclose(pixels, np.broadcast_to(colour, (8, 8, 3)), atol=2)

    def test_what_is_transparent_is_white(self):
        """Whatever colour hides there; half of it is half white."""
        hidden = Image.new("RGBA", (4, 1), (200, 40, 90, 0))
        hidden.putpixel((1, 0), (200, 40, 90, 255))
        hidden.putpixel((2, 0), (0, 0, 0, 128))
        palette = Image.new("P", (4, 1), 0)
        palette.putpalette([200, 40, 90, 0, 0, 255])
        palette.putpixel((1, 0), 1)
        grey = Image.new("L", (4, 1), 7)
        grey.putpixel((1, 0), 9)
        white = (255, 255, 255)
        for name, image, options, expected in (
            ("colour.png", hidden, {}, [white, (200, 40, 90), (127, 127, 127), white]),
            ("grey.png", hidden.convert("LA"), {}, [white, (94,) * 3, (127,) * 3, white]),
            ("index.png", palette, {"transparency": 0}, [white, (0, 0, 255), white, white]),
            (
                "shares.png",
                palette,
                {"transparency": b"\0\xff"},
                [white, (0, 0, 255), white, white],
            ),
            ("moving.gif", palette, {"transparency": 0}, [white, (0, 0, 255), white, white]),
            ("level.png", grey, {"transparency": 7}, [white, (9,) * 3, white, white]),
        ):
            with self.subTest(name):
                image.save(self.root / name, **options)
                found = np.asarray(open_image(self.root / name).convert("RGB"))
                np.testing.assert_array_equal(found, [expected])

    def test_more_than_8_bits(self):
        """Scaled by what is in them; what cannot be is named, and never black in silence."""
        ramp = np.linspace(0, 1, 256)[None]
        path = self.root / "deep.tif"
        for kind, high, low in (
            (np.int32, 255, 0), (np.uint16, 255, 0), (np.uint16, 1023, 0), (np.uint16, 4095, 0),
            (np.uint16, 65535, 0), (np.int32, 1_000_000, 0), (np.float32, 1, 0),
            (np.float32, 255, 0), (np.float32, 1e20, 0), (np.float32, 3, -1), (np.int32, 500, -500),
        ):  # fmt: skip
            with self.subTest(kind.__name__, high=high):
                Image.fromarray((low + (high - low) * ramp).round(3).astype(kind)).save(path)
                found = np.asarray(open_image(path)).astype(int)
                np.testing.assert_allclose(found, [range(256)], atol=1)
        Image.fromarray(np.full((3, 3), 100, np.int32)).save(path)  # a dark one is not made bright
        np.testing.assert_array_equal(open_image(path), np.full((3, 3), 100))
        for level in (0.0, np.nan, np.inf):
            Image.fromarray(np.full((3, 3), level, np.float32)).save(path)
            if level == 0:
                self.assertEqual(np.asarray(open_image(path)).max(), 0)
            else:
                with self.assertRaisesRegex(OSError, "^some of its values are no finite numbers$"):
                    open_image(path)

    def test_deep_colours_of_few_levels(self):
        """Of 16 bits a colour only the upper 8 can be read: 10 of them would be black."""
        path = self.root / "deep.png"
        for colours, alpha, dark in ((1023, None, True), (1023, 65535, True), (65535, 9, False)):
            with self.subTest(colours=colours, alpha=alpha):
                levels = [colours] * 3 + [alpha] * (alpha is not None)
                pixels = np.full((5, 6, len(levels)), levels, ">u2")
                path.write_bytes(png_of(pixels))
                if dark:
                    with self.assertRaisesRegex(OSError, "^the 16-bit colours stay below 4,096"):
                        open_image(path)
                else:
                    self.assertEqual(np.asarray(open_image(path)).min(), 255)

    def test_what_pillow_warns_of_is_not_passed_on(self):
        """A picture is read, or left out in a line of ours."""
        exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20)
        Image.new("RGB", (20, 20)).save(self.root / "exif.jpg", exif=exif)
        palette = Image.new("P", (20, 20))
        palette.putpalette([1, 2, 3] * 256)
        palette.save(self.root / "palette.png", transparency=bytes(256))
        Image.new("1", (10_000, 9_000)).save(self.root / "large.png")
        code = "import sys; from pathlib import Path; from lab.images import open_image\n"
        code += "for path in map(Path, sys.argv[1:]): print(open_image(path).size)"
        files = [self.root / name for name in ("exif.jpg", "palette.png", "large.png")]
        done = subprocess.run(
            [sys.executable, "-c", code, *files], cwd=PROJECT, capture_output=True, text=True
        )
        self.assertEqual(done.stderr, "")
        self.assertEqual(done.stdout, "(20, 20)\n(20, 20)\n(10000, 9000)\n")

    def test_exif_orientation(self):
        """A picture stored on its side (orientation 6) comes upright."""
        stored = Image.new("RGB", (40, 20), "black")
        stored.paste("white", (0, 0, 20, 20))  # left half; upright it is the upper one
        exif = Image.Exif()
        exif[0x0112] = 6
        stored.save(self.root / "side.png", exif=exif)
        pixels = Preprocess((40, 20)).fit(open_image(self.root / "side.png"))
        self.assertGreater(pixels[:18].min(), 250)
        self.assertLess(pixels[22:].max(), 5)


def png_of(pixels: np.ndarray) -> bytes:
    """Return colours of 16 bits, (H, W, 3 or 4), as a PNG, which Pillow does not write."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n"
    for kind, content in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        body += struct.pack(">I", len(content)) + kind + content + checksum
    return body


MOVES = ("ROTATION", "SHIFT", "SCALE", "SHEAR")
LIGHT = ("EXPOSURE", "CONTRAST", "SATURATION")


class AugmentationTest(unittest.TestCase):
    def setUp(self):
        self.images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1

    def augment(self, images, seed=0):
        return augment_batch(images, torch.Generator().manual_seed(seed))

    def test_seeded_and_in_range(self):
        """One seed, one result; another seed, another; values stay in [-1, 1]; input untouched."""
        before = self.images.clone()
        once = self.augment(self.images)
        self.assertTrue(torch.equal(once, self.augment(self.images)))
        self.assertFalse(torch.equal(once, self.augment(self.images, seed=1)))
        self.assertLessEqual(once.abs().max(), 1)
        self.assertTrue(torch.equal(before, self.images))

    def test_parameters_differ_per_image(self):
        """Copies of one image in a batch all come out different."""
        copies = self.augment(self.images[:1].expand(16, -1, -1, -1))
        distances = torch.cdist(copies.flatten(1), copies.flatten(1))
        self.assertGreater(distances[~torch.eye(16, dtype=torch.bool)].min(), 1)

    def test_never_mirrors(self):
        """A white left half stays on the left, whatever is drawn: left is not right."""
        images = torch.full((256, 3, 32, 32), -1.0)
        images[..., :16] = 1
        result = self.augment(images)
        self.assertTrue((result[..., :8].mean((1, 2, 3)) > result[..., 24:].mean((1, 2, 3))).all())

    def test_uniform_grey_stays_uniform(self):
        """No black border enters, and colour changes are the same all over the image."""
        result = self.augment(torch.zeros(32, 3, 32, 32))
        self.assertLess(result.flatten(1).std(1).max(), 1e-5)

    def spread(self, values, extent):
        """The values are uniform within [-extent, extent]: its mean, deviation and ends."""
        self.assertLess(values.abs().max(), extent * 1.02)
        self.assertGreater(values.max(), extent * 0.9)
        self.assertLess(values.min(), -extent * 0.9)
        self.assertAlmostEqual(values.mean().item() / extent, 0, delta=0.1)
        self.assertAlmostEqual(values.std().item() / extent, 3**-0.5, delta=0.05)

    def test_moves(self):
        """Rotation, shear, scale and shift, each as far as the README says, read off two ramps."""
        y, x = torch.meshgrid(*[(torch.arange(32) + 0.5) / 16 - 1] * 2, indexing="ij")
        ramps = torch.stack([x, y, torch.zeros_like(x)]) * 0.5
        with mock.patch.multiple(augmentation, **dict.fromkeys(LIGHT, 0), BLUR_SHARE=1e-9):
            moved = self.augment(ramps.expand(1000, -1, -1, -1)) / 0.5
        inner = slice(12, 20)  # the border is not seen from here
        points = torch.stack([x, y, torch.ones_like(x)], 2)[inner, inner].reshape(-1, 3)
        values = moved[:, :2, inner, inner].flatten(2).permute(2, 0, 1).reshape(len(points), -1)
        theta = torch.linalg.lstsq(points, values).solution.T.view(1000, 2, 3)
        # theta = [[zx cos, zx (shear - sin), 2 dx], [zy sin, zy cos, 2 dy]]
        angle = torch.atan2(theta[:, 1, 0], theta[:, 1, 1])
        zoom_x, zoom_y = theta[:, 0, 0] / angle.cos(), theta[:, 1, :2].norm(dim=1)
        self.spread(angle, math.radians(10))
        self.spread(theta[:, 0, 1] / zoom_x + angle.sin(), 0.1)
        self.spread(zoom_x - 1, 0.12)
        self.spread(zoom_y - 1, 0.12)
        self.spread(theta[:, 0, 2] / 2, 0.06)
        self.spread(theta[:, 1, 2] / 2, 0.06)

    def test_light_and_colour(self):
        """Exposure, contrast and saturation, each as far as the README says, read off two halves.

        Both are of one hue, one darker: contrast pulls their greys apart, saturation their
        channels, exposure all.
        """
        halves = torch.full((1000, 3, 32, 32), -0.5)
        halves[..., :16] = -0.7
        halves[:, 0] += 0.1
        halves[:, 2] -= 0.1
        with mock.patch.multiple(augmentation, **dict.fromkeys(MOVES, 0)):
            result = self.augment(halves)
        left, right = result[..., 16, 4], result[..., 16, 28]  # (1000, 3), as far from the edge
        stretch = (right - left).mean(1) / 0.2  # exposure and contrast
        exposure = ((left + right).mean(1) / 2 + 1) / 0.4
        self.spread(exposure.log(), 0.5)
        self.spread(stretch / exposure - 1, 0.3)
        self.spread((right[:, 0] - right[:, 2]) / 0.2 / stretch - 1, 0.5)

    def test_blur(self):
        """One image in ten loses some of a chequered pattern, up to the 3x3 mean's eight ninths."""
        board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 - 0.5
        with mock.patch.multiple(augmentation, **dict.fromkeys((*MOVES, *LIGHT), 0)):
            result = self.augment(board.expand(2000, 3, -1, -1))
        kept = result[:, 0, 16, 16] / board[16, 16]
        self.assertAlmostEqual(int((kept < 0.999).sum()), 200, delta=40)
        self.assertGreater(kept.min(), 1 / 9 - 1e-4)
        self.assertLess(kept.min(), 0.2)
        self.assertLess(kept.max(), 1.001)

    def test_saves_a_picture(self):
        """Original and augmented signs, for the eye: visualized/augmentation.jpg."""
        import matplotlib.pyplot as plt

        from lab.drawing import save_figure
        from tests.support import PROJECT
        from world import signs

        rng = np.random.default_rng(0)
        drawn = [signs.draw_sign(label, rng).resize((32, 32)) for label in range(0, 24, 3)]
        images = torch.from_numpy(np.stack([np.asarray(image) for image in drawn]))
        images = images.permute(0, 3, 1, 2) / 127.5 - 1
        rows = [images] + [self.augment(images, seed) for seed in range(3)]
        grid = make_grid(torch.cat(rows) / 2 + 0.5, nrow=8).permute(1, 2, 0)
        figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
        axis.imshow(grid, interpolation="nearest")
        axis.set_yticks([17, 85], ["as drawn", "augmented,\nthree times"])
        axis.set_xticks([])
        path = PROJECT / "visualized" / "augmentation.jpg"
        path.unlink(missing_ok=True)
        save_figure(figure, path)
        plt.close(figure)
        with Image.open(path) as saved:
            self.assertEqual(saved.format, "JPEG")
            self.assertGreater(saved.width, 2 * saved.height * 0.8)
