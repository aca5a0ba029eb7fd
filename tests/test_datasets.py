"""Data sets by name against torchvision's own reading; splits, resizing, augmentation, errors."""

import gzip
import hashlib
import io
import os
import pickle
import tempfile
import threading
import unittest
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import CIFAR10, MNIST

from datasets import DIGITS, MODES, SOURCES, ImageDataset, Split, find_data, hold_out, make_loader
from lab import checkpoint, folders
from lab.augmentation import mirror_and_crop
from lab.console import LabError, UsageError
from lab.images import Preprocess
from lab.runtime import Runtime
from tasks.classification import DATASETS, TASK
from tasks.classification.data import test_loader
from tasks.trained import Trained
from tests.support import PROJECT, ScriptCase, make_images, script

# Mean and deviation of the training pixels, as everyone's scripts have them.
PUBLISHED = {
    "mnist": ((0.1307,), (0.3081,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


def write_idx(path: Path, values: np.ndarray) -> None:
    """Write an array in MNIST's format (LeCun et al. 1998): a header of big-endian sizes."""
    header = np.array([0x800 + values.ndim, *values.shape], ">i4").tobytes()
    path.write_bytes(header + values.astype(np.uint8).tobytes())


def make_mnist(root: Path, train: int = 200, test: int = 50) -> Path:
    """Lay out grey 28x28 pictures as torchvision keeps MNIST; a bright row tells the class."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, count in (("train", train), ("t10k", test)):
        labels = np.arange(count) % 10
        pixels = rng.integers(0, 100, (count, 28, 28))
        pixels[np.arange(count), 4 + 2 * labels] += 150
        write_idx(raw / f"{name}-images-idx3-ubyte", pixels)
        write_idx(raw / f"{name}-labels-idx1-ubyte", labels)
    return root


def make_cifar10(root: Path) -> dict[str, list]:
    """Lay out random pictures as torchvision keeps CIFAR-10; return the files' own checksums."""
    folder = root / CIFAR10.base_folder
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    lists = {"train_list": [], "test_list": []}
    names = [name for name, _ in CIFAR10.train_list + CIFAR10.test_list]
    for name in names:
        content = {"data": rng.integers(0, 256, (20, 3072)).astype(np.uint8)}
        content["labels"] = [index % 10 for index in range(20)]
        (folder / name).write_bytes(pickle.dumps(content))
        kind = "test_list" if name == "test_batch" else "train_list"
        lists[kind].append([name, hashlib.md5((folder / name).read_bytes()).hexdigest()])
    classes = [f"class {index}" for index in range(10)]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
    checksum = hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()
    return lists | {"meta": CIFAR10.meta | {"md5": checksum}}


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


class TemporaryFolder(unittest.TestCase):
    def setUp(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = Path(holder.name)

    def load(self, name, mode, size, augment=None, **options):
        """Return a loader of a data set by name, at a size, with its own normalisation."""
        source = SOURCES[name]
        preprocess = Preprocess(size, source.mean, source.std)
        split = source.read(self.root, mode, preprocess)
        return make_loader(split, preprocess, 16, augment=augment, **options)


class TorchvisionTest(TemporaryFolder):
    def assert_same(self, name, reference, size, tolerance):
        """Train and val together, and test, are the reference's images and labels, each once."""
        steps = [transforms.Resize(size), transforms.ToTensor()]
        steps.append(transforms.Normalize(*PUBLISHED[name]))
        for train, modes in ((True, ("train", "val")), (False, ("test",))):
            theirs = reference(self.root, train=train, transform=transforms.Compose(steps))
            loaders = [self.load(name, mode, size) for mode in modes]
            self.assertEqual(sum(len(loader.dataset) for loader in loaders), len(theirs))
            batches = [batch for loader in loaders for batch in loader]
            ours = [torch.cat(parts) for parts in zip(*batches, strict=True)]
            images = torch.stack([image for image, _ in theirs])
            labels = torch.tensor([label for _, label in theirs])
            nearest = torch.cdist(ours[0].flatten(1), images.flatten(1)).argmin(1)
            self.assertEqual(nearest.sort().values.tolist(), list(range(len(theirs))))
            torch.testing.assert_close(ours[0], images[nearest], rtol=0, atol=tolerance)
            self.assertTrue(torch.equal(ours[1], labels[nearest]))

    def test_mnist(self):
        """Every pixel as torchvision reads and normalises it, at 28x28 and resized to 32x32."""
        make_mnist(self.root)
        self.assert_same("mnist", MNIST, (28, 28), 1e-5)
        self.assert_same("mnist", MNIST, (32, 32), 1.01 / 255 / 0.3081)  # a level of rounding

    def test_cifar10(self):
        patch = mock.patch.multiple(CIFAR10, **make_cifar10(self.root))
        with patch:
            self.assert_same("cifar10", CIFAR10, (32, 32), 1e-5)
            self.assertEqual(self.load("cifar10", "val", (32, 32)).dataset.classes[3], "class 3")

    def test_files_that_are_there_are_left_alone(self):
        """Nothing is downloaded or written where torchvision's files lie."""
        make_mnist(self.root)
        before = sorted(self.root.rglob("*"))
        with mock.patch.object(MNIST, "download", side_effect=AssertionError):
            SOURCES["mnist"].prepare(self.root)
            self.load("mnist", "train", (28, 28))
        self.assertEqual(sorted(self.root.rglob("*")), before)

    def test_download_is_whole_or_not_at_all(self):
        """From a server that lacks a file: one line, and nothing is left; from a whole one: all."""
        served = make_mnist(self.root / "served") / "MNIST" / "raw"
        resources = {}
        for path in sorted(served.iterdir()):
            packed = served / f"{path.name}.gz"
            packed.write_bytes(gzip.compress(path.read_bytes()))
            resources[packed.name] = hashlib.md5(packed.read_bytes()).hexdigest()
        handler = partial(QuietHandler, directory=str(served))
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        options = {
            "mirrors": [f"http://127.0.0.1:{server.server_port}/"],
            "resources": list(resources.items()),
        }
        here, last = self.root / "here", served / list(resources)[-1]
        (here / f".MNIST-{2**22 + 1}" / "MNIST").mkdir(parents=True)  # of a killed process
        with (
            mock.patch.multiple(MNIST, **options),
            redirect_stdout(io.StringIO()),
            redirect_stderr(io.StringIO()),
        ):
            last.rename(served / "hidden")
            with self.assertRaisesRegex(LabError, "--dataset digits, or put .*MNIST") as caught:
                SOURCES["mnist"].prepare(here)
            self.assertNotIn("\n", str(caught.exception))
            self.assertEqual(list(here.iterdir()), [])
            (served / "hidden").rename(last)
            SOURCES["mnist"].prepare(here)
        self.assertEqual(len(MNIST(here).data), 200)
        self.assertEqual([path.name for path in here.iterdir()], ["MNIST"])

    def test_damaged_files(self):
        """A cut file, a missing one and one of another checksum are called what they are."""
        raw = make_mnist(self.root) / "MNIST" / "raw" / "train-images-idx3-ubyte"
        whole = raw.read_bytes()
        for content in (whole[:5000], whole[:10], b"", None):
            raw.write_bytes(content) if content is not None else raw.unlink()
            with self.assertRaisesRegex(LabError, "MNIST is incomplete or damaged; remove it"):
                self.load("mnist", "train", (28, 28))
        make_cifar10(self.root)  # without the checksums of what was written
        with self.assertRaisesRegex(LabError, "cifar-10-batches-py is incomplete or damaged"):
            self.load("cifar10", "test", (32, 32))


class SplitTest(TemporaryFolder):
    def test_held_out_once_and_stratified(self):
        """A tenth of each class, always the same images, none in both parts."""
        labels = torch.arange(1000) % 7 % 5  # classes of different size
        images = torch.arange(1000).view(-1, 1, 1, 1)
        split = Split(tuple("abcde"), [], labels, images)
        rest, held = hold_out(split, 0.1)
        again = hold_out(split, 0.1)[1]
        self.assertTrue(torch.equal(held.images, again.images))
        both = torch.cat([rest.images, held.images]).flatten()
        self.assertEqual(both.sort().values.tolist(), list(range(1000)))
        self.assertTrue(torch.equal(labels[held.images.flatten()], held.labels))
        counts = labels.bincount()
        self.assertEqual(held.labels.bincount().tolist(), [round(c / 10) for c in counts.tolist()])

    def test_digits(self):
        """scikit-learn's 1,797, each in one split; mean and deviation are those of train."""
        splits = [SOURCES["digits"].read(None, mode, None) for mode in MODES]
        self.assertEqual([len(split.labels) for split in splits], [1295, 143, 359])
        every = torch.cat([split.images for split in splits]).flatten(1)
        self.assertEqual(len({image.numpy().tobytes() for image in every}), 1797)
        self.assertEqual(every.shape[1], 28 * 28)
        pixels = splits[0].images.float() / 255
        self.assertAlmostEqual(pixels.mean().item(), SOURCES["digits"].mean[0], places=4)
        self.assertAlmostEqual(pixels.std().item(), SOURCES["digits"].std[0], places=4)

    def test_where_data_is(self):
        """A folder must be given for `folder` and must not for `digits`; the others have one."""
        with chdir(PROJECT):
            self.assertEqual(find_data("mnist", None), Path("data"))
        with chdir(self.root):
            self.assertEqual(find_data("mnist", None), PROJECT / "data")
        self.assertEqual(find_data("mnist", self.root), self.root)
        self.assertIsNone(find_data("digits", None))
        for arguments in (("folder", None), ("digits", self.root)):
            with self.assertRaisesRegex(UsageError, "--data_root"):
                find_data(*arguments)

    def test_signs_are_drawn_in_the_projects_folder_alone(self):
        """By whatever path it is reached, and when it is empty; nowhere else."""
        own, other = self.root / "project" / "data", self.root / "project" / "other"
        own.mkdir(parents=True)
        (self.root / "link").symlink_to(own)
        with (
            mock.patch("world.missing.DATA_ROOT", own),
            mock.patch("world.missing.draw") as drawn,
            redirect_stdout(io.StringIO()),
        ):
            for folder in (other, Path("data"), own / "inner", self.root):
                SOURCES["signs"].prepare(folder)
            self.assertEqual(drawn.call_count, 0)
            with chdir(self.root / "project"):
                for folder in (own, Path("data"), self.root / "link", Path("other/../data")):
                    SOURCES["signs"].prepare(folder)
            self.assertEqual(drawn.call_count, 4)
            (own / "train").mkdir()
            SOURCES["signs"].prepare(own)
            self.assertEqual(drawn.call_count, 4)
        (own / "train").rename(own / "val")
        with (
            mock.patch("world.missing.DATA_ROOT", own),
            self.assertRaisesRegex(LabError, "holds val but no train/"),
        ):
            SOURCES["signs"].prepare(own)

    def test_what_a_checkpoint_was_trained_on(self):
        """The test split is found from its own data set's name and folder, or from one given."""
        data = make_images(self.root / "project" / "own", {"train": 2, "test": 2})
        state = {"data_root": "own", "dataset": "folder", "configs": {"num_classes": 3}}

        def load(given_root: Path | None, **given: object) -> DataLoader:
            runtime = Runtime(torch.device("cpu"))
            trained = Trained(TASK, Path("x.pth"), state | given, nn.Identity(), None, runtime)
            return test_loader(trained, given_root, 4)

        with mock.patch.object(folders, "PROJECT", data.parent), chdir(self.root):
            loader = load(None)
            self.assertEqual(loader.dataset.split.paths[0].parent, Path("project/own/test/blue"))
        loader = load(data, data_root="gone")
        self.assertEqual(len(loader.dataset), 6)
        loader = load(None, data_root=str(data))
        self.assertEqual(len(loader.dataset), 6)
        for wrong, words in (
            ({"data_root": "gone"}, "no data folder .*gone"),
            ({"dataset": "video"}, "unknown data set 'video'; there are signs, signs43, mnist"),
            ({"data_root": str(data), "class_names": ["blue"]}, "adds green, red"),
            ({"data_root": str(data), "configs": {"num_classes": 4}}, "has 3 classes"),
        ):
            with self.assertRaisesRegex(LabError, words):
                load(None, **wrong)

    def test_share_of_arrays(self):
        """`val_share` is that of train; test stays as it is."""
        for share, counts in ((0.1, [1295, 143, 359]), (0.25, [1079, 359, 359])):
            splits = [SOURCES["digits"].read(None, mode, None, share) for mode in MODES]
            self.assertEqual([len(split.labels) for split in splits], counts)
        make_mnist(self.root)
        for mode, count in (("train", 100), ("val", 100), ("test", 50)):
            split = SOURCES["mnist"].read(self.root, mode, None, 0.5)
            self.assertEqual(len(split.labels), count)

    def test_names_are_those_of_the_flag(self):
        self.assertEqual(list(DATASETS), list(SOURCES))


class ResizeTest(unittest.TestCase):
    def test_a_batch_is_resized_as_one_picture_is(self):
        """To a level of rounding: squashed or cropped, bilinear or bicubic, grey or RGB."""
        rng = np.random.default_rng(0)
        half = (0.5,)
        for channels, wanted, size, resize, bicubic, shape in (
            (1, 1, (32, 32), None, False, (28, 28)),
            (1, 3, (24, 24), 30, True, (28, 28)),
            (3, 3, (20, 20), 24, False, (32, 45)),
            (3, 3, (40, 16), None, True, (32, 32)),
            (3, 1, (32, 32), None, False, (32, 32)),
            (3, 3, (28, 28), 32, False, (28, 28)),
        ):
            with self.subTest(channels=channels, wanted=wanted, size=size, resize=resize):
                preprocess = Preprocess(size, half * wanted, half * wanted, resize, bicubic)
                pixels = rng.integers(0, 256, (3, *shape, channels)).astype(np.uint8)
                batch = preprocess.fit_batch(torch.from_numpy(pixels)).numpy()
                pictures = [Image.fromarray(picture.squeeze()) for picture in pixels]
                expected = np.stack([preprocess.fit(picture) for picture in pictures])
                difference = np.abs(batch.astype(int) - expected)
                self.assertLessEqual(difference.max(), 0 if size == shape and not resize else 1)

    def test_too_large_for_memory(self):
        """Beyond the budget images stay at their own size, come out the same, and it is said."""
        images = torch.randint(0, 256, (20, 28, 28, 1), dtype=torch.uint8)
        split = Split(DIGITS, [], torch.arange(20) % 10, images)
        preprocess = Preprocess((40, 40))
        resident = ImageDataset(split, preprocess)
        said = io.StringIO()
        with mock.patch("lab.decoding.CACHE_BUDGET", 1000), redirect_stdout(said):
            lazy = ImageDataset(split, preprocess)
            self.assertEqual((resident.images.shape[1], lazy.images.shape[1]), (40, 28))
            self.assertTrue(torch.equal(resident[7][0], lazy[7][0]))
        self.assertIn("resized batch by batch", said.getvalue())


class AugmentationTest(unittest.TestCase):
    def setUp(self):
        self.images = torch.rand(64, 3, 32, 24, generator=torch.Generator().manual_seed(1))

    def test_mirror_and_crop_is_a_padded_crop(self):
        """Every result is a crop of the image, mirrored or not, padded by reflection."""
        results = mirror_and_crop(self.images, torch.Generator().manual_seed(0))
        mirrored, offsets = 0, set()
        for image, result in zip(self.images, results, strict=True):
            padded = torch.nn.functional.pad(image, (3, 3, 4, 4), mode="reflect")
            crops = padded.unfold(1, 32, 1).unfold(2, 24, 1)  # (3, 9, 7, 32, 24)
            plain = (crops == result[:, None, None]).all(4).all(3).all(0)
            flipped = (crops == result.flip(2)[:, None, None]).all(4).all(3).all(0)
            self.assertEqual(int(plain.sum() + flipped.sum()), 1)
            mirrored += int(flipped.sum())
            offsets.add(tuple((plain | flipped).nonzero()[0].tolist()))
        self.assertTrue(16 < mirrored < 48, mirrored)
        self.assertGreater(len(offsets), 30)

    def test_digits_are_never_mirrored(self):
        """A bright left half stays on the left; only data sets where left is right are mirrored."""
        images = torch.full((256, 3, 28, 28), -1.0)
        images[..., :14] = 1
        for name, mirrors in (("mnist", 0), ("digits", 0), ("signs", 0), ("cifar10", 128)):
            result = SOURCES[name].augment(images, torch.Generator().manual_seed(0))
            swapped = result[..., :7].mean((1, 2, 3)) < result[..., 21:].mean((1, 2, 3))
            self.assertAlmostEqual(int(swapped.sum()), mirrors, delta=30 if mirrors else 0)

    def test_augmented_images_are_normalised_alike(self):
        """An augmentation that does nothing leaves what normalising alone gives."""
        images = torch.randint(0, 256, (10, 8, 8, 3), dtype=torch.uint8)
        split = Split(tuple("ab"), [], torch.arange(10) % 2, images)
        preprocess = Preprocess((8, 8), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
        plain, augmented = (
            ImageDataset(split, preprocess, vary).__getitems__(range(10))[0]
            for vary in (None, lambda images, generator: images)
        )
        torch.testing.assert_close(plain, augmented, rtol=1e-5, atol=1e-5)


class ScriptTest(TemporaryFolder, ScriptCase):
    def test_mnist_from_training_to_test(self):
        """mnist_cnn is chosen, learns, leaves vis.png; test.py needs the checkpoint alone."""
        make_mnist(self.root / "data", train=400)
        run = self.root / "run"
        done = script(
            "train.py", "--dataset", "mnist", "--data_root", self.root / "data", "--ckpt_path", run,
            "--epoch", 5, "--lr", "3e-3",
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("225,034 parameters on 360 train, 40 val, 50 test images", done.stdout)
        with Image.open(run / "vis.png") as saved:
            first = SOURCES["mnist"].read(self.root / "data", "train", None).images[0, ..., 0]
            self.assertTrue(np.array_equal(np.asarray(saved), first.numpy()))
        done = script("test.py", "--ckpt_path", run, "--epoch", "last", "--save")
        self.assertIn("accuracy on the test set: 100.00% (50 of 50)", done.stdout, done.stderr)
        self.assertEqual(len(list((run / "results").glob("*_correct_?_?.jpg"))), 50)
        state = checkpoint.load(run / "ckpt_epoch_5.pth")
        self.assertEqual(state["network"], "mnist_cnn")
        self.assertEqual(state["dataset"], "mnist")
        self.assertEqual(state["preprocess"]["mean"], (0.1307,))

    def test_resumed_digits_are_bit_identical(self):
        """Two epochs, or one and one resumed: augmented digits, the same weights."""
        flags = ("--dataset", "digits", "--augment", "--batch_size", 128)
        for arguments in (
            (*flags, "--ckpt_path", self.root / "whole", "--epoch", 2),
            (*flags, "--ckpt_path", self.root / "parts", "--epoch", 1),
            ("--resume", self.root / "parts", "--epoch", 2),
        ):
            done = script("train.py", *arguments)
            self.assertEqual(done.returncode, 0, done.stderr)
        whole, parts = (
            checkpoint.load(self.root / name / "ckpt_epoch_2.pth")["model_state"]
            for name in ("whole", "parts")
        )
        for key, value in whole.items():
            self.assertTrue(torch.equal(value, parts[key]), key)

    def test_folder(self):
        """An image folder by name: mirrored; without val/ and test/ it is trained all the same."""
        data = make_images(self.root / "data", {"train": 24})
        done = script(
            "train.py", "--dataset", "folder", "--data_root", data, "--augment", "--epoch", 1,
            "--ckpt_path", self.root / "run",
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("66 train, 6 val images of 3 classes", done.stdout)
        done = script("test.py", "--ckpt_path", self.root / "run", "--epoch", 1)
        self.assert_refused(done, 1, "has no test/")

    def test_odd_names(self):
        """Classes and files named with `$`, a backslash and bytes that are no UTF-8."""
        data = make_images(self.root / "data", {"train": 8, "val": 4, "test": 4})
        for folder in data.glob("*/*"):
            odd = {"blue": b"5$", "green": b"c\\d", "red": b"\xff\xfe"}[folder.name]
            (folder / "000.png").rename(folder / os.fsdecode(b"\xe9$\\.png"))
            (folder / os.fsdecode(b"cut\xe9.png")).touch()
            folder.rename(folder.with_name(os.fsdecode(odd)))
        run = self.root / "run"
        done = script("train.py", "--data_root", data, "--ckpt_path", run, "--epoch", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("left out 3 of 27 files: 5$/cut\\xe9.png (empty file)", done.stdout)
        done = script("test.py", "--ckpt_path", run, "--epoch", 1)
        self.assertEqual(done.returncode, 0, done.stderr)
        for name in ("5$", "c\\d", "\\xff\\xfe"):
            self.assertIn(f"\n{name} ", done.stdout)

    def test_refusals(self):
        """No data and no connection, and data sets whose folder is wrong, in one line each."""
        done = script("train.py", "--dataset", "folder", "--ckpt_path", self.root / "run")
        self.assert_refused(done, 2, "--data_root")
        (self.root / "data" / "MNIST").mkdir(parents=True)
        done = script(
            "train.py", "--dataset", "mnist", "--data_root", self.root / "data",
            "--ckpt_path", self.root / "run",
        )  # fmt: skip
        self.assert_refused(done, 1, "incomplete or damaged")
        self.assertFalse((self.root / "run").exists())
