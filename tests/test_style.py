"""style.py: losses against loops and closed forms, pictures and networks that gain a style."""

import contextlib
import io
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models

import style
from lab import checkpoint
from lab.console import LabError
from lab.images import Preprocess
from networks import Classifier
from style import (
    PRESETS,
    StyleLosses,
    content_loss,
    feature_extractor,
    gram_matrix,
    style_loss,
    transfer,
    tv_loss,
)
from tasks import fast_style
from tasks.fast_style import TransformNet
from tests.support import PROJECT, environment, make_images, script


def setUpModule():
    """Use one thread, as the scripts of the tests do: sums then come in the same order."""
    unittest.addModuleCleanup(torch.set_num_threads, torch.get_num_threads())
    torch.set_num_threads(1)


def draw(*shape, seed=0):
    """Normal numbers in float64, for comparisons to many digits."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class LossTest(unittest.TestCase):
    def test_gram_matrix_is_a_sum_over_positions(self):
        """Against loops over images and pairs of channels, in both memory layouts."""
        features = draw(2, 3, 4, 5)
        expected = torch.zeros(2, 3, 3, dtype=torch.float64)
        for image in range(2):
            for one in range(3):
                for other in range(3):
                    products = features[image, one] * features[image, other]
                    expected[image, one, other] = products.sum()
        for layout in (torch.contiguous_format, torch.channels_last):
            laid_out = features.contiguous(memory_format=layout)
            torch.testing.assert_close(gram_matrix(laid_out, normalize=False), expected)
            torch.testing.assert_close(gram_matrix(laid_out), expected / (3 * 4 * 5))

    def test_gram_matrix_in_closed_form(self):
        features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels of 1x2
        expected = torch.tensor([[[5.0, 1.0], [1.0, 10.0]]])
        torch.testing.assert_close(gram_matrix(features, normalize=False), expected)
        torch.testing.assert_close(gram_matrix(features), expected / 4)

    def test_content_and_tv_in_closed_form(self):
        current, original = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1.0, 4.0, 2.0])
        self.assertEqual(content_loss(0.5, current, original).item(), 0.5 * (4 + 9))
        image = torch.tensor([[1.0, 2.0, 4.0], [1.0, 0.0, 0.0]]).view(1, 1, 2, 3)
        rows, columns = 0 + 4 + 16, 1 + 4 + 1 + 0
        self.assertEqual(tv_loss(image, 2.0).item(), 2 * (rows + columns))

    def test_tv_against_loops(self):
        """Every neighbour counts once, also at the edges, in a batch of several images."""
        images, total = draw(2, 3, 4, 6), 0.0
        for y in range(4):
            for x in range(6):
                if y:
                    total += (images[..., y, x] - images[..., y - 1, x]).square().sum()
                if x:
                    total += (images[..., y, x] - images[..., y, x - 1]).square().sum()
        torch.testing.assert_close(tv_loss(images, 0.7), 0.7 * total)

    def test_style_loss_against_loops(self):
        """Features as a list or by name, several images against one style picture."""
        feats = [draw(2, 3, 4, 5, seed=1), draw(2, 4, 2, 2, seed=2), draw(2, 2, 3, 3, seed=3)]
        layers, weights = [0, 2], [20.0, 3.0]
        targets = [gram_matrix(draw(1, 3, 6, 6, seed=4)), gram_matrix(draw(1, 2, 5, 5, seed=5))]
        expected = 0.0
        for layer, target, weight in zip(layers, targets, weights, strict=True):
            for image in feats[layer]:
                flat = image.flatten(1)
                gram = flat @ flat.T / flat.numel()
                expected += weight * ((gram - target[0]) ** 2).sum()
        torch.testing.assert_close(style_loss(feats, layers, targets, weights), expected)
        named = {"a": feats[0], "b": feats[1], "c": feats[2]}
        torch.testing.assert_close(style_loss(named, ["a", "c"], targets, weights), expected)
        with self.assertRaises(ValueError):
            style_loss(feats, layers, targets[:1], weights)

    def test_gradients(self):
        """Of each loss against finite differences; the Gram matrix's own backward above all."""
        images = draw(2, 3, 4, 5).requires_grad_()
        columns_last = images.detach().contiguous(memory_format=torch.channels_last)
        other, target = draw(2, 3, 4, 5, seed=1), gram_matrix(draw(1, 3, 4, 4, seed=2))
        uneven = draw(2, 3, 3, seed=3)  # no symmetric gradient, as the style loss's would be
        for name, loss in {
            "content": lambda x: content_loss(0.3, x, other),
            "gram": lambda x: (gram_matrix(x) * uneven).sum(),
            "style": lambda x: style_loss([x], [0], [target], [40.0]),
            "tv": lambda x: tv_loss(x, 0.3),
        }.items():
            with self.subTest(name):
                self.assertTrue(torch.autograd.gradcheck(loss, images))
                self.assertTrue(torch.autograd.gradcheck(loss, columns_last.requires_grad_()))


class Overwriting(nn.Module):
    """Its layers overwrite what the one before has handed out, in three ways."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = self.relu(self.conv(x))
        y = self.norm(x)
        y += x
        z = self.last(y)
        nn.functional.relu(z, inplace=True)
        return z


class ExtractorTest(unittest.TestCase):
    def test_captured_layers_are_not_overwritten(self):
        """Each output is the module's own, though the next one works in place."""
        torch.manual_seed(0)
        network, images = Overwriting(), torch.randn(1, 3, 6, 6)
        found = feature_extractor(network, ["conv", "norm", "last"])(images)
        network.eval()
        with torch.no_grad():
            conv = network.conv(images)
            norm = network.norm(conv.relu())
            last = network.last(norm + conv.relu())
        for name, expected in {"conv": conv, "norm": norm, "last": last}.items():
            torch.testing.assert_close(found[name], expected)

    def test_the_network_stays_as_it_is(self):
        network = Overwriting().train()
        extractor = feature_extractor(network, ["conv"])
        self.assertTrue(network.training and network.relu.inplace)
        self.assertTrue(all(p.requires_grad for p in network.parameters()))
        self.assertFalse(extractor.training or any(p.requires_grad for p in extractor.parameters()))
        self.assertFalse(hasattr(extractor, "last"))  # what no layer needs is cut off

    def test_unknown_layers_are_answered_with_those_there_are(self):
        with self.assertRaises(LabError) as caught:
            feature_extractor(Overwriting(), ["conv", "conv9"])
        self.assertIn("no layer 'conv9'; there are conv, relu, norm, last", str(caught.exception))

    def test_the_presets_layers_exist(self):
        """Each recipe names layers of its network, in step with its weights and channels."""
        vgg = models.vgg19(weights=None).features
        recipe = style.RECIPES["vgg19"]
        firsts = [index for index, layer in enumerate(vgg) if isinstance(layer, nn.MaxPool2d)]
        expected = [1, *(index + 2 for index in firsts[:4])]  # the ReLU of a block's first
        self.assertEqual(recipe.style_layers, tuple(f"features.{index}" for index in expected))
        self.assertEqual(recipe.content_layer, f"features.{firsts[3] - 1}")
        squeezenet = dict(models.squeezenet1_1(weights=None).named_modules())
        for recipe in PRESETS.values():
            self.assertEqual(len(recipe.style_layers), len(recipe.style_weights))
            self.assertLessEqual({recipe.content_layer, *recipe.style_layers}, set(squeezenet))


def make_losses(style_image, **changes):
    """Losses by an untrained SqueezeNet, whose structure alone keeps content and texture."""
    torch.manual_seed(0)
    recipe = style.replace(PRESETS["composition"], **changes)
    layers = (recipe.content_layer, *recipe.style_layers)
    return StyleLosses(feature_extractor(models.squeezenet1_1(), layers), recipe, style_image)


class TransferTest(unittest.TestCase):
    """One picture, 64 pixels, by SqueezeNet's structure with seeded weights."""

    @classmethod
    def setUpClass(cls):
        rng = torch.Generator().manual_seed(1)
        y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
        stripes = torch.stack([(x / 3 + y / 5).sin(), (y / 4).cos(), (x / 2).sin()])[None]
        cls.style_image = stripes * 1.5
        cls.content = nn.functional.interpolate(
            torch.randn(1, 3, 8, 8, generator=rng), size=(64, 64), mode="bilinear"
        )
        cls.bounds = Preprocess(
            mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ).bounds(torch.device("cpu"))  # fmt: skip
        cls.losses = make_losses(cls.style_image)

    def test_the_total_loss_falls(self):
        """In 30 steps to a quarter or less, whatever the optimizer and the start; within bounds."""
        noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
        for optim_type, lr in (("lbfgs", None), ("adam", 0.3)):
            for start in (self.content, noise):
                with self.subTest(optim_type, start="noise" if start is noise else "content"):
                    course = transfer(
                        self.losses, self.content, start, self.bounds, 30, optim_type, lr
                    )
                    totals = course.losses.sum(1)
                    self.assertEqual(len(totals), 31)
                    self.assertLess(totals[-1], totals[0] / 4)
                    self.assertTrue((course.result >= self.bounds[0]).all())
                    self.assertTrue((course.result <= self.bounds[1]).all())

    def test_losses_belong_to_the_pictures_shown(self):
        """A step's row is what the losses say of its picture; the start is untouched."""
        start = self.content.clone()
        course = transfer(self.losses, self.content, start, self.bounds, 8)
        target = self.losses.content_target(self.content)
        for step, picture in course.pictures.items():
            torch.testing.assert_close(self.losses(picture, target), course.losses[step])
        torch.testing.assert_close(start, self.content)
        self.assertEqual(course.losses[0, 0].item(), 0)  # the content itself
        torch.testing.assert_close(course.pictures[0], self.content)

    def test_the_three_losses(self):
        """Against the network run layer by layer; the style picture itself has no style loss."""
        recipe = self.losses.recipe
        torch.manual_seed(0)
        network = models.squeezenet1_1().features.eval()
        outputs, x = [], self.content
        with torch.no_grad():
            for layer in network[:8]:
                x = layer(x.clone())
                outputs.append(x.clone())
            content_target = outputs[3] * 0.5
            content, total, tv = self.losses(self.content, content_target)
        self.assertAlmostEqual(
            content.item(), recipe.content_weight * (outputs[3] ** 2).sum().item() / 4, delta=1e-3
        )
        by_index = style_loss(
            outputs, (1, 4, 6, 7), self.losses.style_targets, recipe.style_weights
        )
        torch.testing.assert_close(total, by_index)
        torch.testing.assert_close(tv, tv_loss(self.content, recipe.tv_weight))
        own = self.losses(self.style_image, content_target)
        self.assertLess(own[1].item(), 1e-6 * total.item())

    def test_too_small_for_the_network(self):
        with self.assertRaises(LabError) as caught:
            make_losses(self.style_image[..., :4, :5])
        self.assertIn("5x4 pixels is too small for the network", str(caught.exception))
        self.assertIn("--style_size", str(caught.exception))


class TransformTest(unittest.TestCase):
    def test_any_size_keeps_its_size(self):
        torch.manual_seed(0)
        model = TransformNet(width=4, blocks=1).eval()
        for height, width in ((16, 16), (17, 30), (33, 64), (19, 21)):
            with torch.no_grad():
                painted = model(torch.rand(2, 3, height, width) * 2 - 1)
            self.assertEqual(painted.shape, (2, 3, height, width))
            self.assertLessEqual(painted.abs().max().item(), 1)

    def test_every_image_is_normalised_by_itself(self):
        """In training, too, an image's result is the same alone and in a batch."""
        torch.manual_seed(0)
        model = TransformNet(width=4, blocks=2).train()
        images = torch.rand(3, 3, 24, 24) * 2 - 1
        with torch.no_grad():
            torch.testing.assert_close(model(images)[1:2], model(images[1:2]))
            # Contrast and brightness of the content do not pass the first normalisation.
            faint = images * 0.25 + 0.1
            torch.testing.assert_close(model(faint), model(images), atol=2e-3, rtol=0)

    def test_no_frame_around_an_even_picture(self):
        """Reflection at the border: what is grey all over stays even all over."""
        torch.manual_seed(0)
        model = TransformNet(width=4, blocks=1).eval()
        with torch.no_grad():
            painted = model(torch.full((1, 3, 32, 32), 0.3))
        self.assertLess(painted.std((2, 3)).max().item(), 1e-4)


class ScriptTest(unittest.TestCase):
    """The real script with an untrained SqueezeNet's weights in a file."""

    @classmethod
    def setUpClass(cls):
        holder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(holder.cleanup)
        cls.base = Path(holder.name)
        torch.manual_seed(0)
        cls.weights = cls.base / "weights.pth"
        torch.save(models.squeezenet1_1().state_dict(), cls.weights)
        rng = np.random.default_rng(0)
        cls.style, cls.content = cls.base / "waves.png", cls.base / "photo.png"
        y, x = np.mgrid[:70, :90]
        waves = np.stack([np.sin(x / 3 + y / 5), np.cos(y / 4), np.sin(x / 2)], 2) * 120 + 128
        Image.fromarray(waves.astype(np.uint8)).save(cls.style)
        Image.fromarray(rng.integers(0, 255, (60, 80, 3), np.uint8)).save(cls.content)
        cls.photos = make_images(cls.base / "photos", {"train": 4}, size=48)

    def call(self, *flags):
        """Run the script in this process, which has imported what takes seconds; its output."""
        argv = ["style.py", "--save_dir", str(self.base / "out"), *map(str, flags)]
        printed = io.StringIO()
        with mock.patch("sys.argv", argv), contextlib.redirect_stdout(printed):
            style.main()
        return printed.getvalue()

    def refuse(self, code, words, *flags):
        """A `LabError`, which `console.run` prints, or the parser's end: a line and a code."""
        printed = io.StringIO()
        with (
            contextlib.redirect_stderr(printed),
            self.assertRaises((LabError, SystemExit)) as caught,
        ):
            self.call("--content", self.content, *flags)
        usage = isinstance(caught.exception, SystemExit)
        text = printed.getvalue() if usage else f"{caught.exception}\n"
        self.assertEqual(caught.exception.code if usage else caught.exception.exit_code, code)
        self.assertEqual(text.count("\n"), 1, text)
        self.assertIn(words, text)

    def test_a_picture_and_its_course(self):
        done = script(
            "style.py", "--content", self.content, "--save_dir", self.base / "out",
            "--style", self.style, "--weights", self.weights, "--steps", 5, "--size", 45,
            "--style_size", 40, "--start", "noise",
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"content [\d,]+, style [\d,]+, TV [\d,]+; in all")
        with Image.open(self.base / "out/style/photo_waves.jpg") as picture:
            self.assertEqual(picture.size, (60, 45))
        with Image.open(self.base / "out/style/photo_waves_steps.jpg") as strip:
            self.assertGreater(strip.width, 5 * strip.height)

    def test_a_sign_network_of_our_own(self):
        """Without ImageNet's weights: a classifier's features, at any size, STN or not."""
        torch.manual_seed(0)
        model, folder = Classifier(3, 5, use_batch_norm=True, use_stn=True), self.base / "signs"
        folder.mkdir()
        state = {"model_state": model.state_dict(), "configs": vars(model.config)}
        torch.save(state, folder / "ckpt_epoch_1.pth")
        flags = ("--ckpt_path", folder, "--size", 33, "--style_size", 40, "--steps", 30)
        printed = self.call("--style", self.style, "--start", "noise", *flags)
        last, first = re.search(r"in all ([\d,]+), from ([\d,]+)", printed).groups()
        self.assertLess(int(last.replace(",", "")), int(first.replace(",", "")))
        self.refuse(2, "holds no style of its own; give --style", *flags)

    def test_bad_input(self):
        own = ("--weights", self.weights)
        fine = ("--style", self.style, *own)
        text = self.base / "text.jpg"
        text.write_text("no picture")
        for code, words, more in (
            (2, "give --style", ()),
            (2, "--style_weights takes 4 numbers", (*fine, "--style_weights", 1, 2)),
            (2, "--train needs --data_root", (*fine, "--train")),
            (2, "--steps", (*fine, "--steps", 0)),
            (1, "no image", ("--style", self.base / "absent.jpg", *own)),
            (1, "text.jpg: not an image", ("--style", text, *own)),
            (1, "is too small for the network", (*fine, "--size", 4, "--style_size", 40)),
            (1, "no file of weights", ("--style", self.style, "--weights", "absent.pth")),
            (1, "do not fit the network", (*fine, "--model", "vgg19")),
            (1, "python style.py --train", ("--ckpt_path", self.base / "empty")),
            (1, "cannot write to --ckpt_path", self.train(text / "run")),
            (1, "no folder", (*fine, "--train", "--data_root", self.base / "absent")),
        ):
            with self.subTest(words):
                self.refuse(code, words, *more)

    def train(self, folder, *more):
        return [
            "--train", "--style", self.style, "--weights", self.weights, "--data_root",
            self.photos, "--ckpt_path", folder, "--width", 4, "--size", 32, "--style_size", 32,
            "--batch_size", 2, "--lr", 0.01, *more,
        ]  # fmt: skip

    def test_a_network_for_one_style(self):
        """Training lowers the losses; interrupted, it goes on exactly; then one pass paints."""
        straight, stopped = self.base / "straight", self.base / "stopped"
        printed = self.call(*self.train(straight, "--epoch", 3))
        self.assertIn(f"python style.py --ckpt_path {straight}", printed)
        state = checkpoint.load(checkpoint.find(straight, "last"))
        losses = [row["loss"] for row in state["history"]]
        self.assertLess(losses[-1], losses[0] * 0.8)
        self.assertEqual((state["task"], state["configs"]["width"]), ("style", 4))

        command = map(str, self.train(stopped, "--epoch", 3))
        process = subprocess.Popen(
            [sys.executable, "style.py", *command],
            cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        while not list(stopped.glob("ckpt_epoch_1.pth")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn("Go on with: python style.py --resume", output)
        self.call("--resume", stopped)
        again = checkpoint.load(checkpoint.find(stopped, "last"))
        self.assertEqual(again["epoch"], 3)
        for name, weights in state["model_state"].items():
            self.assertTrue(torch.equal(weights, again["model_state"][name]), name)

        self.call("--ckpt_path", straight, "--content", self.content)
        with Image.open(self.base / "out/style/photo_straight.jpg") as picture:
            self.assertEqual(picture.size, (80, 60))
        self.refuse(1, "needs 16 pixels", "--ckpt_path", straight, "--size", 9)
        self.refuse(1, "3 epochs already", "--resume", straight)


class TrainingTest(unittest.TestCase):
    def test_the_loss_is_the_mean_over_images(self):
        """Of a batch, the mean of what each image gets by itself; 0 content loss for a copy."""
        torch.manual_seed(0)
        style_image = torch.randn(1, 3, 40, 40)
        losses = make_losses(style_image, tv_weight=0.0)
        preprocess = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
        loss = fast_style.transform_loss(losses, preprocess, torch.device("cpu"))
        painted, images = torch.rand(2, 3, 3, 40, 40) * 2 - 1
        alone = [loss(painted[i : i + 1], images[i : i + 1]) for i in range(3)]
        torch.testing.assert_close(loss(painted, images), sum(alone) / 3)
        # [-1, 1] reaches the network as the pixels of a file would.
        pixels = torch.randint(0, 256, (1, 40, 40, 3), dtype=torch.uint8)
        unit = Preprocess().normalize(pixels)
        direct = preprocess.normalize(pixels)
        expected = losses(direct, losses.content_target(direct)).sum()
        torch.testing.assert_close(loss(unit, unit), expected, rtol=1e-4, atol=1e-4)

    def test_photographs_are_found_at_any_depth(self):
        with tempfile.TemporaryDirectory() as folder:
            root = make_images(Path(folder), {"train": 3, "deep/er": 2}, size=24)
            (root / "deep/notes.txt").write_text("no picture")
            (root / "deep/broken.jpg").write_bytes(b"\xff\xd8")
            loader = fast_style.photo_loader(root, 16, 4, 0, torch.device("cpu"))
            self.assertEqual(len(loader.dataset), 15)
            seen = 0
            for images, targets in loader:
                self.assertEqual(images.shape[1:], (3, 16, 16))
                torch.testing.assert_close(images, targets)
                seen += len(images)
            self.assertEqual(seen, 15)
