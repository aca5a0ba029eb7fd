"""Loader, cache, bad files, augmentation; saves visualized/augmentation.jpg."""

import io
import os
import tempfile
import unittest
from contextlib import redirect_stdout
from itertools import zip_longest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.utils import make_grid

import datasets
from datasets import BatchSampler, check_count, get_data_loader
from lab.augmentation import augment_batch
from lab.console import LabError
from lab.images import Preprocess, open_image
from tests.support import CLASSES, make_images


class TemporaryData(unittest.TestCase):
    """A small data set, and a cache of its own."""

    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = make_images(Path(holder.name) / "set", {"train": 11, "val": 3, "test": 3}, 40)
        patch = mock.patch.object(datasets, "CACHE_FOLDER", Path(holder.name) / "cache")
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
        reference = ImageFolder(str(self.root / "test"), transforms.Compose(steps))
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

    def test_epochs_differ_and_repeat(self):
        """Each epoch shuffles anew; setting the epoch brings its batches back."""
        loader, _ = self.load(augment=True)
        first, second = [torch.cat([x for x, _ in loader]) for _ in range(2)]
        self.assertFalse(torch.equal(first, second))
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
        with mock.patch.object(datasets, "CACHE_BUDGET", 1000):
            streamed, said = self.load(seed=1, num_workers=1)
        self.assertIn("read from disk", said)
        self.assertIsNone(streamed.dataset.images)
        for (a, b), (c, d) in zip(cached, streamed, strict=True):
            self.assertTrue(torch.equal(a, c) and torch.equal(b, d))


class CacheTest(TemporaryData):
    def test_second_run_decodes_nothing(self):
        """With nothing changed, no image is opened again."""
        first, _ = self.load()
        with mock.patch.object(datasets, "open_image", side_effect=AssertionError):
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

    def test_damaged_cache_is_made_anew(self):
        first, _ = self.load()
        for cache in datasets.CACHE_FOLDER.iterdir():
            cache.write_bytes(cache.read_bytes()[:1000])
        second, _ = self.load()
        self.assertTrue(torch.equal(first.dataset.images, second.dataset.images))


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

    def test_saves_a_picture(self):
        """Original and augmented signs, for the eye: visualized/augmentation.jpg."""
        import matplotlib.pyplot as plt

        from lab.pictures import save_figure
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
