"""Segmentation: loss, measures, the network for two cores, what is drawn, and the real scripts."""

import argparse
import tempfile
import unittest
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_matrix
from sklearn.metrics import f1_score, jaccard_score
from torch import nn

from lab import checkpoint, engine
from lab.films import frames_of
from lab.optimizers import Muon
from lab.registry import Design, build, new_config
from lab.runtime import Runtime
from tasks.annotated import choose_shown
from tasks.blocks import fold
from tasks.segmentation import DATASETS, FCNS, NETWORK, TASK
from tasks.segmentation.data import SOURCES, SegmentationDataset, make_loader, read_split
from tasks.segmentation.labels import CAMVID_CLASSES, IGNORED
from tasks.segmentation.networks import (
    FCN,
    NETWORKS,
    FCNConfig,
    ResUNet,
    ResUNetConfig,
    Segmenter,
    normalise,
)
from tasks.segmentation.objective import (
    SegmentationMeter,
    SegmentationObjective,
    class_weights,
    confusion_matrix,
    dice_loss,
    subsample,
)
from tasks.segmentation.results import GREY, WRONG, draw_mistakes, legend, mark_wrong, overlay
from tasks.segmentation.windows import Windows
from tests.support import ScriptCase, script, script_here, stopped_at
from tests.test_segmentation_data import make_folder, save
from world.street import streets_of

CPU = Runtime(torch.device("cpu"))


class Told(Segmenter):
    """Scores that it is told, whatever it sees."""

    def __init__(self, scores, stride=1):
        super().__init__()
        self.scores, self.stride = scores, stride

    def forward(self, images):
        return self.scores[: len(images)]


# ---------------------------------------------------------------- loss


class LossTest(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.scores = torch.randn(3, 4, 6, 8)
        self.labels = torch.randint(0, 4, (3, 6, 8))
        self.labels[1, 2:] = IGNORED

    def test_by_a_naive_loop(self):
        """A mean over images of the mean over their labelled pixels, weighted or not."""
        for weights in (None, [0.5, 1.0, 2.0, 4.0]):
            loss = SegmentationObjective("abcd", weights).cross_entropy(self.scores, self.labels)
            means = []
            for scores, labels in zip(self.scores, self.labels, strict=True):
                each = [
                    -scores[:, y, x].log_softmax(0)[label] * (weights[label] if weights else 1)
                    for y, row in enumerate(labels.tolist())
                    for x, label in enumerate(row)
                    if label != IGNORED
                ]
                means.append(sum(each) / len(each))
            self.assertAlmostEqual(float(loss), float(sum(means) / 3), places=5)

    def test_dice_by_sets(self):
        """Of certain scores Dice is that of sets, by scikit-learn's F1; of others, between."""
        found = torch.randint(0, 4, (3, 6, 8))
        known = self.labels != IGNORED
        for classes in (4, 3):  # one of them nowhere but in what is found
            labels = self.labels.where(self.labels != 3, 0) if classes == 3 else self.labels
            scores = 100 * F.one_hot(found, 4).movedim(3, 1).float()
            expected = f1_score(labels[known], found[known], labels=range(classes), average="macro")
            self.assertAlmostEqual(float(dice_loss(scores, labels)), 1 - expected, places=5)
        soft = self.scores.double()
        total = 0
        for label in range(4):
            p = soft.softmax(1)[:, label][known]
            there = (self.labels[known] == label).double()
            total = total + 2 * (p * there).sum() / (p.sum() + there.sum())
        loss = dice_loss(soft, self.labels)
        self.assertAlmostEqual(float(loss), 1 - float(total) / 4, places=9)
        together = SegmentationObjective("abcd").loss(Told(self.scores), self.scores, self.labels)
        plain = SegmentationObjective("abcd").cross_entropy(self.scores, self.labels)
        self.assertAlmostEqual(float(together - plain), float(loss), places=5)

    def test_nothing_labelled(self):
        self.labels[:] = IGNORED
        loss = SegmentationObjective("abcd").loss(Told(self.scores), self.scores, self.labels)
        self.assertEqual(float(loss), 0)

    def test_cells(self):
        """Of 2x2 pixels that a score stands for one is asked: over four images, each of them."""
        labels = torch.arange(4 * 10 * 14).view(4, 10, 14)
        asked = subsample(labels, 5)
        for own, whole, (y, x) in zip(asked, labels, [(0, 0), (0, 1), (1, 0), (1, 1)], strict=True):
            self.assertTrue(torch.equal(own, whole[y::2, x::2]))
        self.assertIs(subsample(labels, 10), labels)
        self.labels = self.labels.repeat_interleave(2, 1).repeat_interleave(2, 2)
        coarse = SegmentationObjective("abcd").loss(Told(self.scores), self.scores, self.labels)
        self.labels = self.labels[:, ::2, ::2]
        fine = SegmentationObjective("abcd").loss(Told(self.scores), self.scores, self.labels)
        self.assertAlmostEqual(float(coarse), float(fine), places=6)

    def test_class_weights(self):
        shares = np.array([0.7, 0.29, 0.01, 0.0])
        weights = np.array(class_weights(shares))
        self.assertTrue((np.diff(weights) > 0).all())
        self.assertAlmostEqual((weights * shares).sum(), 1)
        # Paszke et al.: in inverse proportion to the logarithm of a constant and the share
        expected = np.log(1.1 + 0.7) / np.log(1.1 + 0.01)
        self.assertAlmostEqual(weights[2] / weights[0], expected)


# ---------------------------------------------------------------- measures


class MeterTest(unittest.TestCase):
    classes = ("a", "b", "c", "d")

    def setUp(self):
        rng = np.random.default_rng(0)
        self.labels = torch.from_numpy(rng.choice(3, (6, 5, 7), p=[0.6, 0.3, 0.1]))
        self.found = torch.from_numpy(rng.choice(3, (6, 5, 7), p=[0.5, 0.3, 0.2]))
        self.labels[0] = 0  # pictures differ, so that their means would, too
        self.labels[1, :, :3] = IGNORED
        self.images = torch.zeros(6, 3, 5, 7)

    def measure(self, *batches):
        meter = SegmentationObjective(self.classes).meter()
        for part in batches:
            scores = F.one_hot(self.found[part], 4).permute(0, 3, 1, 2).float()
            meter.update(Told(scores), self.images[part], self.labels[part])
        return meter, meter.compute(CPU)

    def test_by_scikit_learn(self):
        known = self.labels != IGNORED
        true, found = self.labels[known].numpy(), self.found[known].numpy()
        meter, figures = self.measure(slice(0, 4), slice(4, 6))
        np.testing.assert_array_equal(meter.matrix[:3, :3], sklearn_matrix(true, found))
        iou = jaccard_score(true, found, average=None)
        np.testing.assert_allclose(meter.iou[:3], iou)
        self.assertAlmostEqual(figures["miou"], iou.mean())
        self.assertAlmostEqual(figures["pixel_accuracy"], (true == found).mean())
        each = [(found[true == k] == k).mean() for k in range(3)]
        self.assertAlmostEqual(figures["class_accuracy"], np.mean(each))

    def test_a_class_that_is_nowhere(self):
        """It counts for nothing; one that is found but not there, for 0."""
        self.assertTrue(self.measure(slice(0, 6))[0].iou[3].isnan())
        before = self.measure(slice(0, 6))[1]["miou"]
        self.found[2, 0, 0] = 3
        meter, figures = self.measure(slice(0, 6))
        self.assertEqual(meter.iou[3], 0)
        self.assertLess(figures["miou"], 0.8 * before)

    def test_is_no_mean_over_pictures(self):
        """However pixels are dealt out to batches, the figures are those of all together."""
        whole = self.measure(slice(0, 6))[1]
        single = self.measure(*(slice(k, k + 1) for k in range(6)))[1]
        for name, value in whole.items():
            self.assertAlmostEqual(single[name], value, places=6)
        means = [self.measure(slice(k, k + 1))[1]["miou"] for k in range(6)]
        self.assertGreater(abs(np.mean(means) - whole["miou"]), 0.01)

    def test_ignored_is_counted_nowhere(self):
        matrix = confusion_matrix(torch.tensor([0, IGNORED, 1]), torch.tensor([1, 1, 1]), 2)
        self.assertEqual(matrix.tolist(), [[0, 1], [0, 1]])

    def test_odd_sizes(self):
        """Scores of filled images are cut back; nothing of the filling is counted."""
        torch.manual_seed(0)
        network = ResUNet(ResUNetConfig(4, width=8)).eval()
        images, labels = torch.randn(1, 3, 33, 47), torch.randint(0, 4, (1, 33, 47))
        meter = SegmentationMeter(self.classes, SegmentationObjective(self.classes).cross_entropy)
        with torch.inference_mode():
            meter.update(network, images, labels)
            found = network.segment(images).argmax(1)
        self.assertEqual(int(meter.matrix.sum()), 33 * 47)
        self.assertEqual(int(meter.matrix.diag().sum()), int((found == labels).sum()))
        self.assertTrue(0 < meter.compute(CPU)["loss"] < 5)


# ---------------------------------------------------------------- the network


class ResUNetTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        cls.network = ResUNet(ResUNetConfig(11)).eval()

    @torch.inference_mode()
    def test_sizes(self):
        self.assertEqual(self.network(torch.rand(2, 3, 64, 96)).shape, (2, 11, 32, 48))
        for size in ((481, 359), (30, 1), (64, 64)):
            self.assertEqual(self.network.segment(torch.rand(1, 3, *size)).shape, (1, 11, *size))

    def test_sees_a_whole_frame(self):
        """The label of a frame's first pixel hangs on pixels at the far edges."""
        images = torch.rand(1, 3, 352, 480, requires_grad=True)
        # Statistics of the image would tie all its pixels to each other, as batch norm's would.
        with mock.patch("tasks.segmentation.networks.normalise", lambda images: images):
            self.network(images)[0, :, 0, 0].sum().backward()
        seen = images.grad[0].abs().amax(0) > 0
        self.assertTrue(seen[-1].any() and seen[:, -1].any())

    @torch.inference_mode()
    def test_filling_is_cut_off(self):
        """What lies right and below of odd images is 0, and scores are where they belong."""
        images = torch.rand(1, 3, 50, 70)
        filled = F.pad(images, (0, 26, 0, 14))
        expected = F.interpolate(self.network(filled), (64, 96), mode="bilinear")[..., :50, :70]
        torch.testing.assert_close(self.network.segment(images), expected)

    @torch.inference_mode()
    def test_two_sizes(self):
        """The mean of what is said of a picture, and of one of half as many rows and columns."""
        config = self.network.config
        twice = ResUNet(replace(config, sizes=2)).eval()
        twice.load_state_dict(self.network.state_dict())
        images = torch.rand(2, 3, 49, 70)
        half = F.interpolate(F.pad(images, (0, 0, 0, 1)), scale_factor=0.5, mode="area")
        half[:, :, -1] = images[:, :, -1].unflatten(2, (35, 2)).mean(3)  # of one row, not of two
        coarse = F.interpolate(self.network.segment(half), (50, 70), mode="bilinear")[..., :49, :]
        expected = (self.network.segment(images) + coarse) / 2
        torch.testing.assert_close(twice.segment(images), expected)

    def test_normalise(self):
        """Light and contrast of the channels change nothing, nor does what is filled up."""
        images = torch.rand(2, 3, 50, 70) * 2 - 1
        light, contrast = torch.rand(2, 2, 3, 1, 1) + 0.5
        normal = normalise(images)
        torch.testing.assert_close(normal.mean((2, 3)), torch.zeros(2, 3), atol=1e-5, rtol=0)
        close = {"atol": 1e-3, "rtol": 1e-3}  # contrast is kept from dividing by 0
        torch.testing.assert_close(normal.var((2, 3)).sqrt(), torch.ones(2, 3), **close)
        torch.testing.assert_close(normalise(images * contrast + light), normal, **close)
        filled = normalise(F.pad(images, (0, 26, 0, 14)))
        torch.testing.assert_close(filled, F.pad(normal, (0, 26, 0, 14)))

    @torch.inference_mode()
    def test_folded_is_the_same(self):
        network, images = ResUNet(ResUNetConfig(3, width=8)), torch.rand(1, 3, 64, 64)
        network.train()(torch.rand(4, 3, 64, 64))
        expected = network.eval()(images)
        folded = fold(network)
        self.assertFalse(any(isinstance(m, torch.nn.BatchNorm2d) for m in folded.modules()))
        torch.testing.assert_close(folded(images), expected, atol=1e-4, rtol=1e-3)

    def test_is_built_from_its_configs(self):
        for name in NETWORKS:
            config = new_config(NETWORKS, name, num_classes=7)
            self.assertEqual(build(NETWORKS, name, asdict(config)).config, config)
        self.assertEqual(new_config(NETWORKS, "fcn_16s", num_classes=7), FCNConfig(7, 16))

    def test_names_that_help_tells(self):
        """Known without torch, they are those that there are."""
        self.assertEqual((NETWORK, *FCNS), tuple(NETWORKS))
        self.assertEqual(DATASETS, tuple(SOURCES))

    def test_weights_round_trip(self):
        """Every network takes back what it puts out; its output layers are layers of its own."""
        for name in NETWORKS:
            config = asdict(new_config(NETWORKS, name, num_classes=3))
            torch.manual_seed(1)
            network, other = build(NETWORKS, name, config), build(NETWORKS, name, config)
            other.load_state_dict(network.state_dict())
            for one, same in zip(network.state_dict().values(), other.state_dict().values(),
                                 strict=True):  # fmt: skip
                self.assertTrue(torch.equal(one, same))
            for layer in network.outputs:
                self.assertTrue(any(True for _ in network.get_submodule(layer).parameters()))


# ---------------------------------------------------------------- what is drawn


class ResultsTest(unittest.TestCase):
    picture = np.full((2, 3, 3), 100, np.uint8)
    labels = np.array([[0, 1, IGNORED], [1, 1, 0]], np.uint8)

    def test_overlay(self):
        shown = overlay(self.picture, self.labels, [(0, 0, 0), (200, 0, 100)])
        self.assertEqual(shown[0, 0].tolist(), [40, 40, 40])
        self.assertEqual(shown[0, 1].tolist(), [160, 40, 100])
        self.assertEqual(shown[0, 2].tolist(), [0, 0, 0])

    def test_overlay_of_any_colours(self):
        """60 % of a class's colour over 40 % of the mean of the three, to the nearest level."""
        generator = np.random.default_rng(0)
        picture = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        labels, colours = generator.integers(0, 3, (40, 50)), generator.integers(0, 256, (3, 3))
        shown = overlay(picture, labels, [tuple(map(int, colour)) for colour in colours])
        exact = 0.6 * colours[labels] + 0.4 * picture.mean(2, keepdims=True)
        self.assertLess(float(np.abs(shown - exact).max()), 0.501)

    def test_mark_wrong(self):
        found = np.array([[0, 0, 0], [1, 1, 1]], np.uint8)
        wrong = mark_wrong(self.picture, self.labels, found)
        right = overlay(self.picture, np.zeros_like(self.labels), [GREY])[0, 0]
        marked = overlay(self.picture, np.zeros_like(self.labels), [WRONG])[0, 0]
        expected = [[right, marked, [0, 0, 0]], [right, right, marked]]
        np.testing.assert_array_equal(wrong, expected)

    def test_shown_are_of_all_over_a_split(self):
        """Of each part the picture that shows the most; all, where there are few."""
        shows = [9, 9, 9, 1, 2, 3, 4, 0]
        args = argparse.Namespace(image_idx=None)
        self.assertEqual(choose_shown(args, shows, 2), [0, 6])
        self.assertEqual(choose_shown(args, shows, 4), [0, 2, 5, 6])
        self.assertEqual(choose_shown(args, shows[:3], 4), [0, 1, 2])
        self.assertEqual(choose_shown(argparse.Namespace(image_idx=7), shows, 2), [7])

    def test_legend_names_what_is_there(self):
        meanings = legend(CAMVID_CLASSES, self.labels, np.array([[5]], np.uint8)).colours
        self.assertEqual(list(meanings), ["sky", "building", "tree"])
        self.assertEqual(meanings["building"], (128, 0, 0))


# ---------------------------------------------------------------- the scripts


class ScriptTest(ScriptCase):
    """The real scripts on a few small pictures."""

    @classmethod
    def setUpClass(cls):
        cls.addClassCleanup(torch.set_num_threads, torch.get_num_threads())
        torch.set_num_threads(1)
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        cls.data = make_folder(cls.base / "data", {"train": 12, "val": 2, "test": 3})
        cls.flags = ("--task", "segmentation", "--dataset", "folder", "--data_root", cls.data,
                     "--batch_size", "4", "--epoch", "2", "--no_show")  # fmt: skip
        source = replace(SOURCES["folder"], windows=Windows(size=(64, 64)))
        patch = mock.patch.dict(SOURCES, folder=source)
        patch.start()
        cls.addClassCleanup(patch.stop)
        # Muon's steps of an FCN take longer than all else.
        cls.fcn = (*cls.flags, "--optim_type", "adam", "--network")
        cls.narrow = (*cls.flags, "--width", "8")
        cls.train(cls.base / "res_unet", *cls.narrow)
        cls.train(cls.base / "fcn_32s", *cls.fcn, "fcn_32s")

    @classmethod
    def train(cls, folder, *flags):
        done = script_here("train.py", *flags, "--ckpt_path", folder)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def report(self, *flags):
        done = script_here("test.py", "--epoch", "last", "--no_show", *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_trains_and_tests(self):
        folder = self.base / "res_unet"
        state = checkpoint.load(folder / "ckpt_epoch_2.pth")
        names = {"loss", "val_loss", "val_miou", "val_pixel_accuracy", "val_class_accuracy"}
        self.assertTrue(names <= state["history"][1].keys())
        self.assertEqual(state["class_names"], ["kind 0", "kind 1", "kind 2"])
        said = self.report("--ckpt_path", folder, "--save")
        self.assertRegex(said, r"kind 1 +\d+\.\d\d% +\d+\.\d\d%")
        self.assertIn("miou", said)
        self.assertNotIn("sky", said)
        self.assertTrue((folder / "confusion_matrix.jpg").is_file())
        results = sorted((folder / "results").glob("*.jpg"))
        self.assertEqual([len(results), results[-1].name], [4, "mistakes.jpg"])
        self.assertEqual(Image.open(results[0]).size, (3 * 48, 40))

    def test_streets_are_looked_at_in_two_sizes(self):
        """By what has learned the drawn ones, and goes on; not by what starts from it."""
        streets, folder = self.base / "streets", self.base / "drawn"
        streets_of((96, 160))(streets, splits={"train": 4, "val": 1, "test": 1})
        flags = ("--task", "segmentation", "--epoch", "1", "--batch_size", "4", "--no_show")
        self.train(folder, *flags, "--data_root", streets, "--width", "8")
        self.train(folder, "--resume", folder, "--epoch", "2", "--no_show")
        state = checkpoint.load(folder / "ckpt_epoch_2.pth")
        self.assertEqual(state["configs"]["sizes"], 2)
        _, network = TASK.restore(state)
        self.assertEqual(network.sizes, 2)
        self.train(self.base / "after", *self.flags, "--weights", folder)
        state = checkpoint.load(self.base / "after/ckpt_epoch_2.pth")
        self.assertEqual(state["configs"]["sizes"], 1)

    def test_width(self):
        """Of the network that has one, kept by whoever starts from it; not of an FCN."""
        folder = self.base / "narrow"
        self.train(folder, *self.narrow, "--network", "res_unet", "--epoch", "1")
        self.assertEqual(checkpoint.load(folder / "ckpt_epoch_1.pth")["configs"]["width"], 8)
        self.train(self.base / "from", *self.flags, "--epoch", "1", "--weights", folder)
        state = checkpoint.load(self.base / "from/ckpt_epoch_1.pth")
        self.assertEqual(state["configs"], {"num_classes": 3, "width": 8, "sizes": 1})
        done = script_here("train.py", *self.flags, "--network", "fcn_32s", "--width", "8")
        self.assert_refused(done, 2, "--width is of res_unet")

    def test_the_worst(self):
        """Pictures with the largest share of wrong labels; what has no labels has none."""
        truth = [np.array([[0, 0, 0, IGNORED]], np.uint8), np.full((1, 4), IGNORED, np.uint8),
                 np.array([[0, 1, 1, 1]], np.uint8), np.ones((1, 4), np.uint8)]  # fmt: skip
        dataset = SimpleNamespace(
            classes=("a", "b"), split=SimpleNamespace(labels=truth),
            picture=lambda k: np.full((1, 4, 3), k, np.uint8),
        )  # fmt: skip
        picture = draw_mistakes(dataset, [np.zeros((1, 4), np.uint8)] * 4)
        shown = [row[0].image[0, 0, 0] for row in picture.parts[0].tiles]
        self.assertEqual(shown, [3, 2, 1])
        self.assertIn("75.0% is wrong", picture.parts[0].tiles[1][2].note)

    def test_stops_and_goes_on_exactly(self):
        """Stopped within the second epoch, it comes to the same weights, bit by bit."""
        folder = self.base / "stopped"
        flags = (*self.narrow, "--ckpt_path", folder)
        with stopped_at(4, Muon):
            done = script_here("train.py", *flags)
        self.assertEqual(done.returncode, 130, done.stderr)
        self.assertIn("epoch 2, 8 of 12 images", done.stdout)
        self.train(folder, "--resume", folder, "--no_show")
        last = "ckpt_epoch_2.pth"
        self.assert_same_weights(self.base / "res_unet" / last, folder / last)

    def test_starts_coarse(self):
        """Three quarters of the epochs, of two, one; none of those that start from weights."""
        sizes = []

        def observed(dataset, *arguments):
            pixels, labels = cut_windows(dataset, *arguments)
            sizes.append(tuple(pixels.shape[2:]))
            return pixels, labels

        cut_windows = SegmentationDataset.cut_windows
        with mock.patch.object(SegmentationDataset, "cut_windows", observed):
            self.train(self.base / "coarse", *self.narrow)
            self.assertEqual(sizes, [(32, 32)] * 3 + [(64, 64)] * 3)
            sizes.clear()
            begun = self.base / "begun"
            weights = ("--weights", self.base / "res_unet")
            self.train(begun, *self.flags, *weights, "--epoch", "1")
            self.train(begun, "--resume", begun, "--epoch", "2", "--no_show")
            self.assertEqual(sizes, [(64, 64)] * 6)
            sizes.clear()
            self.train(self.base / "told", *self.flags, *weights, "--coarse", "0.5")
            self.assertEqual(sizes, [(32, 32)] * 3 + [(64, 64)] * 3)

    def test_goes_on_without_class_weights(self):
        """A flag of the task's own is kept for the run that goes on."""
        folder = self.base / "plain"
        self.train(folder, *self.narrow, "--epoch", "1", "--no-class_weights")
        self.train(folder, "--resume", folder, "--epoch", "2", "--no_show")
        for epoch in (1, 2):
            state = checkpoint.load(folder / f"ckpt_epoch_{epoch}.pth")
            self.assertIsNone(state["class_weights"])
        weighted = checkpoint.load(self.base / "res_unet" / "ckpt_epoch_2.pth")["class_weights"]
        self.assertEqual(TASK.restore(state)[0].weights, None)
        self.assertEqual(len(weighted), 3)

    def test_fine_tuning(self):
        """Of the same classes all layers; of others, a new last one, at ten times the rate."""
        flags = (*self.flags, "--epoch", "1", "--weights", self.base / "res_unet")
        said = self.train(self.base / "tuned", *flags).stdout
        self.assertIn("the body, trained as well, with its output layer, head.0 (Conv2d", said)
        other = make_folder(self.base / "other", {"train": 4, "val": 1}, classes=4)
        said = self.train(self.base / "others", *flags, "--data_root", other).stdout
        self.assertIn("with a new output layer, head.0", said)
        state = checkpoint.load(self.base / "others" / "ckpt_epoch_1.pth")
        self.assertEqual(state["new_layers"], ["head.0"])
        low, high = sorted({own["lr"] for own in state["optimizer_state"]["param_groups"]})
        self.assertAlmostEqual(high / low, 10)

    def test_freeze(self):
        """Output layers alone learn; the run goes on so, and not otherwise."""
        for name in ("res_unet", "fcn_32s"):
            folder, start = self.base / f"frozen_{name}", self.base / name
            weights = ("--weights", start, "--freeze", "--epoch", "1")
            said = self.train(folder, *self.flags, *weights).stdout
            self.assertIn("the body, frozen, with its output layer", said)
            self.train(folder, "--resume", folder, "--epoch", "2", "--no_show")
            before = checkpoint.load(start / "ckpt_epoch_2.pth")["model_state"]
            outputs = NETWORKS[name].build(NETWORKS[name].configure({"num_classes": 3})).outputs
            for epoch in (1, 2):
                after = checkpoint.load(folder / f"ckpt_epoch_{epoch}.pth")["model_state"]
                changed = {key for key in after if not torch.equal(before[key], after[key])}
                expected = {key for key in after if key.startswith(tuple(f"{o}." for o in outputs))}
                self.assertEqual(changed, expected)
            done = script_here("train.py", "--resume", folder, "--epoch", "3", "--no-freeze")
            self.assert_refused(done, 2, "was trained with --freeze")
        done = script_here("train.py", *self.flags, "--freeze", "--ckpt_path", self.base / "no")
        self.assert_refused(done, 2, "add --pretrained or --weights")

    def test_starts_with_the_configs_of_the_weights(self):
        """All but the number of classes; a coarser FCN's body and scores go into a finer one."""
        network = ResUNet(ResUNetConfig(7, width=8))
        state = {"task": "segmentation", "network": "res_unet", "dataset": "street", "epoch": 1,
                 "configs": asdict(network.config), "class_names": list("abcdefg"),
                 "model_state": network.state_dict()}  # fmt: skip
        checkpoint.save(self.base / "narrow.pth", state)
        flags = (*self.flags, "--epoch", "1", "--lr", "1e-12", "--weights")
        self.train(self.base / "narrow", *flags, self.base / "narrow.pth")
        made = checkpoint.load(self.base / "narrow" / "ckpt_epoch_1.pth")
        self.assertEqual(made["configs"], {"num_classes": 3, "width": 8, "sizes": 1})
        flags = (*self.fcn, "fcn_16s", "--epoch", "1", "--lr", "1e-12", "--weights")
        said = self.train(self.base / "finer", *flags, self.base / "fcn_32s").stdout
        self.assertIn("new output layers, scores.1, upsample.0, upsample.1", said)
        coarse = checkpoint.load(self.base / "fcn_32s" / "ckpt_epoch_2.pth")["model_state"]
        fine = checkpoint.load(self.base / "finer" / "ckpt_epoch_1.pth")["model_state"]
        for name in ("body.conv1.weight", "scores.0.weight"):
            torch.testing.assert_close(fine[name], coarse[name])

    def test_fcn_from_published_weights(self):
        """A bare state dict is the body's."""
        body = FCN(FCNConfig(2)).body.state_dict()
        path = self.base / "resnet18.pth"
        torch.save(body | {"fc.weight": torch.zeros(1000, 512)}, path)
        flags = (*self.fcn, "fcn_8s", "--epoch", "1", "--lr", "1e-12")
        done = self.train(self.base / "fcn", *flags, "--weights", path)
        self.assertIn(f"Starting from {path}", done.stdout)
        self.assertIn("new output layers, scores, upsample", done.stdout)
        state = checkpoint.load(self.base / "fcn" / "ckpt_epoch_1.pth")["model_state"]
        torch.testing.assert_close(state["body.conv1.weight"], body["conv1.weight"])
        with mock.patch("tasks.starting.download_weights", return_value=torch.load(path)) as given:
            done = self.train(self.base / "imagenet", *flags, "--pretrained")
        self.assertEqual(given.call_args.args[0], "resnet18")
        self.assertIn("Starting from ImageNet", done.stdout)
        state = checkpoint.load(self.base / "imagenet" / "ckpt_epoch_1.pth")["model_state"]
        torch.testing.assert_close(state["body.conv1.weight"], body["conv1.weight"])

    def test_a_folder_of_another_layout(self):
        """A network of the drawn street is tested on CamVid's folders, by class names."""
        network = ResUNet(ResUNetConfig(11, width=8))
        state = {"task": "segmentation", "network": "res_unet", "dataset": "street",
                 "configs": asdict(network.config), "class_names": list(CAMVID_CLASSES),
                 "model_state": network.state_dict(), "epoch": 1}  # fmt: skip
        folder = self.base / "street"
        folder.mkdir()
        checkpoint.save(folder / "ckpt_epoch_1.pth", state)
        camvid = self.base / "camvid"
        for index in range(2):
            save(camvid / "val" / f"{index}.png", np.zeros((31, 47, 3)))
            save(camvid / "valannot" / f"{index}.png", np.full((31, 47), 3 * index))
        said = self.report("--ckpt_path", folder, "--data_root", camvid)
        self.assertIn("2 pictures", said)
        self.assertIn("mean IoU of sky, building, road, tree, car", said)
        done = script_here("test.py", "--ckpt_path", folder, "--data_root", self.data)
        self.assert_refused(done, 1, "has other classes")

    def test_a_picture_of_ones_own(self):
        """Of any size; large ones are shrunk."""
        folder = self.base / "res_unet"
        path = save(
            self.base / "photo.png", np.random.default_rng(0).integers(0, 256, (359, 981, 3))
        )
        said = self.report("--ckpt_path", folder, "--image", path)
        self.assertRegex(said, r"photo\.png  kind \d [\d.]+%")
        self.assertTrue((folder / "labelled_000_photo.jpg").is_file())

    def test_films_called_alike(self):
        """Folders of frames, each a film of its own, of as many frames and of their size."""
        folder, places = self.base / "res_unet", [self.base / place / "drive" for place in "ab"]
        for place, count in zip(places, (2, 3), strict=True):
            for index in range(count):
                save(place / f"frame{index}.png", np.full((33, 48, 3), 40 * index))
        done = script_here("test.py", "--ckpt_path", folder, "--image", *places, "--film")
        self.assertEqual(done.returncode, 0, done.stderr)
        for number, count in enumerate((2, 3)):
            path = folder / f"film_{number:03d}_drive.mp4"
            self.assertIn(f"Saved {path}: {count} frames", done.stdout)
            frames = list(frames_of(path))
            self.assertEqual([frame.size for frame in frames], [(48, 34)] * count)

    def test_views(self):
        for network, kinds in {"res_unet": ["masks", "cam"], "fcn_32s": ["upsampling"]}.items():
            for kind in kinds:
                with self.subTest(network=network, kind=kind):
                    seen = self.base / "seen" / network
                    done = script_here(
                        "visualize.py", "--type", kind, "--ckpt_path", self.base / network,
                        "--epoch", "last", "--save_dir", seen, "--no_show",
                    )  # fmt: skip
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertTrue((seen / kind / f"{kind}.jpg").is_file())

    def test_refusals(self):
        done = script_here("train.py", *self.flags, "--pretrained", "--ckpt_path", self.base / "no")
        self.assert_refused(done, 2, "--pretrained is for fcn_32s")
        done = script_here("train.py", "--resume", self.base / "fcn_32s", "--epoch", 3,
                           "--network", "res_unet")  # fmt: skip
        self.assert_refused(done, 1, "network is fcn_32s there, res_unet here")
        done = script_here("visualize.py", "--type", "upsampling", "--epoch", "last",
                           "--ckpt_path", self.base / "res_unet")  # fmt: skip
        self.assert_refused(done, 1, "res_unet has no transposed convolution")
        done = script_here("visualize.py", "--type", "masks", "--image_idx", 3, "--epoch", "last",
                           "--ckpt_path", self.base / "res_unet")  # fmt: skip
        self.assert_refused(done, 2, "the pictures are 0 to 2")


@dataclass(frozen=True)
class ToyConfig:
    num_classes: int


class Toy(Segmenter):
    """Labels each pixel by its own colour: what a new network takes, but for a line by name."""

    outputs = ("layer",)

    def __init__(self, config):
        super().__init__()
        self.layer = nn.Conv2d(3, config.num_classes, 1)

    def forward(self, images):
        return self.layer(images)


class ToyNetworkTest(ScriptCase):
    """A new network is a class, its config, and a line."""

    def test_trains_tests_and_is_seen(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        base = Path(holder.name)
        data = make_folder(base / "data", {"train": 4, "val": 1, "test": 2})
        source = replace(SOURCES["folder"], windows=Windows(size=(32, 32)))
        with (
            mock.patch.dict(SOURCES, folder=source),
            mock.patch.dict(NETWORKS, toy=Design(ToyConfig, Toy)),
        ):
            run = ("--ckpt_path", base / "run", "--no_show")
            flags = ("--task", "segmentation", "--dataset", "folder", "--data_root", data,
                     "--batch_size", "4", "--network", "toy", "--epoch", "1")  # fmt: skip
            for words in (
                ("train.py", *flags, *run),
                ("train.py", "--resume", base / "run", "--epoch", "2", *run[2:]),
                ("train.py", *flags, "--weights", base / "run", "--ckpt_path", base / "again",
                 "--no_show"),
                ("test.py", "--epoch", "best", "--save", *run),
                ("test.py", "--epoch", "last", "--image", data / "test" / "images", *run),
                ("visualize.py", "--type", "masks", "--epoch", "last", "--save_dir", base / "seen",
                 *run),
            ):  # fmt: skip
                done = script_here(*words)
                self.assertEqual(done.returncode, 0, done.stderr)
        state = checkpoint.load(base / "run" / "ckpt_epoch_2.pth")
        self.assertEqual((state["network"], state["configs"]), ("toy", {"num_classes": 3}))


class Sizer(Toy):
    """Keeps the (height, width) of all that it labels."""

    seen: ClassVar = []

    def segment(self, images):
        self.seen.append(tuple(images.shape[2:]))
        return super().segment(images)


class SizeTest(ScriptCase):
    """A network sees pictures in the size that it was trained for, whichever script shows them."""

    def sees(self, script, run, *flags):
        """Run a script; return the (height, width) of all that the network saw."""
        Sizer.seen.clear()
        flags = ("--ckpt_path", run, "--epoch", "last", "--no_show", *flags)
        with mock.patch.dict(NETWORKS, toy=Design(ToyConfig, Sizer)):
            done = script_here(script, *flags)
        self.assertEqual(done.returncode, 0, done.stderr)
        return set(Sizer.seen)

    def test_every_script(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        base = Path(holder.name)
        counts = {"train": 2, "val": 1, "test": 1}
        data, large = make_folder(base / "data", counts), base / "large.png"
        save(large, np.zeros((400, 800, 3)))
        other = make_folder(base / "other", {"test": 1}, (80, 192))
        source = replace(SOURCES["folder"], windows=Windows(size=(32, 32)))
        flags = ("--task", "segmentation", "--dataset", "folder", "--data_root", data, "--network",
                 "toy", "--batch_size", 2, "--epoch", 1, "--no_show")  # fmt: skip
        with (
            mock.patch.dict(SOURCES, folder=source),
            mock.patch.dict(NETWORKS, toy=Design(ToyConfig, Sizer)),
        ):
            done = script_here("train.py", *flags, "--ckpt_path", base / "run")
        self.assertEqual(done.returncode, 0, done.stderr)
        out = ("--type", "masks", "--save_dir", base / "seen")
        for run, tested, read in (
            ("run", {(20, 48)}, {(24, 48)}),
            ("old", {(80, 192)}, {(320, 640)}),
        ):
            if run == "old":  # of an earlier version: it does not say the size
                state = checkpoint.load(base / "run" / "ckpt_epoch_1.pth")
                self.assertEqual(state.pop("longest"), 48)
                (base / "old").mkdir()
                checkpoint.save(base / "old" / "ckpt_epoch_1.pth", state)
            run = base / run
            self.assertEqual(self.sees("test.py", run, "--data_root", other), tested)
            self.assertEqual(self.sees("test.py", run, "--image", large), read)
            self.assertEqual(self.sees("visualize.py", run, *out, "--image", large), read)

    def test_one_class_is_refused(self):
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        data = make_folder(Path(holder.name), {"train": 2, "val": 1})
        for path in (data / "train" / "labels").iterdir():
            save(path, np.full((40, 48), 1))
        done = script_here("train.py", "--task", "segmentation", "--dataset", "folder",
                           "--data_root", data, "--ckpt_path", data / "run")  # fmt: skip
        self.assert_refused(done, 1, "nothing to tell apart", "one class, kind 1")


class EarlierCheckpointTest(unittest.TestCase):
    def test_keys(self):
        """What earlier versions saved, neither more nor less, gives its network and objective."""
        for name, config, keys in (
            ("res_unet", {"num_classes": 2, "width": 8},
             ("stage4.0.0.weight", "stage32.3.second.weight", "laterals.3.bias", "joins.2.1.bias",
              "head.0.weight")),
            ("fcn_16s", {"num_classes": 2, "finest": 16},
             ("body.layer4.1.bn2.running_var", "scores.1.bias", "upsample.1.weight")),
        ):  # fmt: skip
            weights = build(NETWORKS, name, config).state_dict()
            self.assertLessEqual(set(keys), set(weights))
            self.assertFalse({"mean", "std"} & set(weights))
            state = {"task": "segmentation", "network": name, "configs": config,
                     "dataset": "street", "class_names": ["a", "b"], "class_weights": [1.0, 2.0],
                     "flags": {"class_weights": True, "coarse": 0.7}, "data_root": "data/street",
                     "model_state": weights}  # fmt: skip
            objective, network = TASK.restore(state)
            self.assertEqual(objective.classes, ("a", "b"))
            self.assertEqual(objective.weights.tolist(), [1, 2])
            self.assertEqual(asdict(network.config) | config, asdict(network.config))
            for key, value in network.state_dict().items():
                self.assertTrue(torch.equal(value, weights[key]))


class ProcessesTest(ScriptCase):
    """Two processes of torchrun share the pictures, and all of them count."""

    def test_the_matrix_is_that_of_all_pictures(self):
        with tempfile.TemporaryDirectory() as base:
            folder = Path(base) / "run"
            data = make_folder(Path(base) / "data", {"train": 6, "val": 5})
            flags = ("--task", "segmentation", "--dataset", "folder", "--lr", "1e-12",
                     "--batch_size", "6", "--epoch", "1", "--precision", "fp32", "--no_show",
                     "--width", "8", "--data_root", data, "--ckpt_path", folder)  # fmt: skip
            done = script("train.py", *flags, processes=2)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(done.stdout.count("Epoch  1/1"), 1)
            state = checkpoint.load(folder / "ckpt_epoch_1.pth")
            objective, network = TASK.restore(state)
            loader = make_loader(read_split("folder", data, "val"), 5)
            figures = engine.evaluate(network, objective.meter(), loader, CPU)
            for name, value in figures.items():
                self.assertAlmostEqual(state["history"][0][f"val_{name}"], value, places=4)


if __name__ == "__main__":
    unittest.main()
