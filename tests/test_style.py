"""style.py: losses against loops and closed forms, pictures and networks that gain a style."""

import contextlib
import io
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import models

from lab import checkpoint
from lab.console import LabError
from lab.imagenet import PUBLISHED
from lab.images import Preprocess, whole_picture
from lab.registry import Design
from networks import Classifier
from tasks import ViewFlags
from tasks.style import MODELS, OPTIMIZERS, PRESETS, RECIPES, TASK, views
from tasks.style.data import make_loader, read_photographs
from tasks.style.losses import (
    FeatureExtractor,
    StyleLosses,
    content_loss,
    gram_matrix,
    style_loss,
    tv_loss,
)
from tasks.style.networks import NETWORKS, TransformConfig, TransformNet
from tasks.style.objective import StyleObjective
from tasks.style.picture import losses_in_words, transfer
from tasks.style.views import draw_course, view_painted
from tasks.trained import load_trained
from tests.support import PROJECT, ScriptCase, environment, make_images, script, script_here


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
        found = FeatureExtractor(network, ["conv", "norm", "last"])(images)
        network.eval()
        with torch.no_grad():
            conv = network.conv(images)
            norm = network.norm(conv.relu())
            last = network.last(norm + conv.relu())
        for name, expected in {"conv": conv, "norm": norm, "last": last}.items():
            torch.testing.assert_close(found[name], expected)

    def test_the_network_stays_as_it_is(self):
        network = Overwriting().train()
        extractor = FeatureExtractor(network, ["conv"])
        self.assertTrue(network.training and network.relu.inplace)
        self.assertTrue(all(p.requires_grad for p in network.parameters()))
        self.assertFalse(extractor.training or any(p.requires_grad for p in extractor.parameters()))

    def test_unknown_layers_are_answered_with_those_there_are(self):
        with self.assertRaises(LabError) as caught:
            FeatureExtractor(Overwriting(), ["conv", "conv9"])
        self.assertIn("no layer 'conv9'; there are conv, relu, norm, last", str(caught.exception))


class RecipeTest(unittest.TestCase):
    def test_layers_exist_and_each_has_its_weight(self):
        networks = {
            "vgg19": models.vgg19(weights=None),
            "classifier": Classifier(3, 4).conv_net,
            **dict.fromkeys(PRESETS, models.squeezenet1_1(weights=None)),
        }
        for name, recipe in (RECIPES | PRESETS).items():
            with self.subTest(name):
                self.assertEqual(len(recipe.style_layers), len(recipe.style_weights))
                known = {layer for layer, _ in networks[name].named_modules()}
                self.assertLessEqual({recipe.content_layer, *recipe.style_layers}, known)

    def test_vgg19(self):
        """The first of each block; the weights fall with the square of the channels."""
        vgg = models.vgg19(weights=None).features
        recipe = RECIPES["vgg19"]
        pools = [index for index, layer in enumerate(vgg) if isinstance(layer, nn.MaxPool2d)]
        expected = [1, *(index + 2 for index in pools[:4])]  # the ReLU of a block's first
        self.assertEqual(recipe.style_layers, tuple(f"features.{index}" for index in expected))
        self.assertEqual(recipe.content_layer, f"features.{pools[3] - 1}")
        balanced = [
            weight * vgg[index - 1].out_channels ** 2
            for index, weight in zip(expected, recipe.style_weights, strict=True)
        ]
        self.assertLess(max(balanced), 1.1 * min(balanced))


def make_losses(style_image, **changes):
    """Losses by an untrained SqueezeNet, whose structure alone keeps content and texture."""
    torch.manual_seed(0)
    recipe = replace(PRESETS["composition"], **changes)
    layers = (recipe.content_layer, *recipe.style_layers)
    return StyleLosses(FeatureExtractor(models.squeezenet1_1(), layers), recipe, style_image)


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

    def test_the_strip_shows_the_course(self):
        """Content, style and five pictures in their order, with the losses of each."""
        preprocess = Preprocess()
        course = transfer(self.losses, self.content, self.content, self.bounds, 20)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "style.png"
            Image.new("RGB", (20, 10), (255, 0, 0)).save(path)
            (tiles,) = draw_course(course, self.content, path, preprocess).tiles
        captions = [tile.caption for tile in tiles]
        self.assertEqual(captions[:2], ["content", "style"])
        steps = [int(re.match(r"after (\d+) steps?\n", caption)[1]) for caption in captions[2:]]
        self.assertEqual(steps, [0, 1, 2, 7, 20])
        shown = [tile.image for tile in tiles]
        self.assertEqual(shown[1][0, 0].tolist(), [255, 0, 0])
        np.testing.assert_array_equal(shown[0], shown[2])  # it starts at the content
        for step, caption, pixels in zip(steps, captions[2:], shown[2:], strict=True):
            self.assertIn(losses_in_words(course.losses[step]).replace(", ", "\n"), caption)
            expected = preprocess.denormalize(course.pictures[step])[0].permute(1, 2, 0)
            np.testing.assert_allclose(pixels, expected.clamp(0, 1), atol=1e-6)

    def test_rates(self):
        """Each optimizer starts at its own rate; adam's falls evenly."""
        grey = torch.full_like(self.content, 0.3)
        for optim_type, rate in OPTIMIZERS.items():
            by_default = transfer(self.losses, self.content, grey, self.bounds, 2, optim_type)
            given = transfer(self.losses, self.content, grey, self.bounds, 2, optim_type, rate)
            self.assertTrue(torch.equal(by_default.result, given.result))
        first, second = ((by_default.pictures[step] - grey).abs().max().item() for step in (1, 2))
        self.assertAlmostEqual(first, OPTIMIZERS["adam"], delta=1e-3)  # Adam's steps are the rate's
        self.assertAlmostEqual(second, 1.5 * OPTIMIZERS["adam"], delta=1e-3)

    def test_too_small_for_the_network(self):
        with self.assertRaises(LabError) as caught:
            make_losses(self.style_image[..., :4, :5])
        self.assertIn("5x4 pixels is too small for the network", str(caught.exception))
        self.assertIn("--style_size", str(caught.exception))


class TransformTest(unittest.TestCase):
    def test_any_size_keeps_its_size(self):
        torch.manual_seed(0)
        model = TransformNet(TransformConfig(4, 1)).eval()
        for height, width in ((16, 16), (17, 30), (33, 64), (19, 21)):
            with torch.no_grad():
                painted = model(torch.rand(2, 3, height, width) * 2 - 1)
            self.assertEqual(painted.shape, (2, 3, height, width))
            self.assertLessEqual(painted.abs().max().item(), 1)

    def test_every_image_is_normalised_by_itself(self):
        """In training, too, an image's result is the same alone and in a batch."""
        torch.manual_seed(0)
        model = TransformNet(TransformConfig(4, 2)).train()
        images = torch.rand(3, 3, 24, 24) * 2 - 1
        with torch.no_grad():
            torch.testing.assert_close(model(images)[1:2], model(images[1:2]))
            # Contrast and brightness of the content do not pass the first normalisation.
            faint = images * 0.25 + 0.1
            torch.testing.assert_close(model(faint), model(images), atol=2e-3, rtol=0)

    def test_no_frame_around_an_even_picture(self):
        """Reflection at the border: what is grey all over stays even all over."""
        torch.manual_seed(0)
        model = TransformNet(TransformConfig(4, 1)).eval()
        with torch.no_grad():
            painted = model(torch.full((1, 3, 32, 32), 0.3))
        self.assertLess(painted.std((2, 3)).max().item(), 1e-4)


class TrainingTest(unittest.TestCase):
    def test_the_loss_is_the_mean_over_images(self):
        """Of a batch, the mean of what each image gets by itself, in all and in its parts."""
        torch.manual_seed(0)
        losses = make_losses(torch.randn(1, 3, 40, 40))
        preprocess = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
        objective = StyleObjective(losses, preprocess.bounds(torch.device("cpu")))
        model, images = TransformNet(TransformConfig(4, 1)), torch.rand(3, 3, 40, 40) * 2 - 1
        total, parts = objective.loss(model, images, None)
        self.assertEqual(list(parts), ["content", "style", "tv"])
        torch.testing.assert_close(sum(parts.values()), total)
        alone = [objective.loss(model, images[i : i + 1], None) for i in range(3)]
        torch.testing.assert_close(total, sum(loss for loss, _ in alone) / 3)
        for name, value in parts.items():
            torch.testing.assert_close(value, sum(figures[name] for _, figures in alone) / 3)
            self.assertGreater(value.item(), 0)
        # A network that changes nothing keeps the content; [-1, 1] reaches the compared network
        # as the pixels of a file would.
        pixels = torch.randint(0, 256, (1, 40, 40, 3), dtype=torch.uint8)
        _, parts = objective.loss(nn.Identity(), Preprocess().normalize(pixels), None)
        self.assertEqual(parts["content"].item(), 0)
        direct = preprocess.normalize(pixels)
        expected = losses(direct, losses.content_target(direct))
        torch.testing.assert_close(
            torch.stack(list(parts.values())), expected, rtol=1e-4, atol=1e-4
        )

    def test_photographs_are_found_at_any_depth(self):
        with tempfile.TemporaryDirectory() as folder:
            root = make_images(Path(folder), {"train": 3, "deep/er": 2}, size=24)
            (root / "deep/notes.txt").write_text("no picture")
            (root / "deep/broken.jpg").write_bytes(b"\xff\xd8")
            loader = make_loader(read_photographs(root, 16), 4, True, torch.device("cpu"))
            self.assertEqual(len(loader.dataset), 15)
            epochs = []
            for _ in range(2):
                batches = list(loader)
                self.assertTrue(all(targets is None for _, targets in batches))
                epochs.append(torch.cat([images for images, _ in batches]))
            self.assertEqual(epochs[0].shape, (15, 3, 16, 16))
            self.assertFalse(torch.equal(*epochs))  # another order
            kept = loader.dataset.preprocess.normalize(loader.dataset.pixels)
            for seen in epochs:
                torch.testing.assert_close(seen.sum(0), kept.sum(0), rtol=0, atol=1e-4)


class RegistryTest(unittest.TestCase):
    def test_names(self):
        """What flags name without torch is what there is."""
        self.assertEqual(list(NETWORKS), [TASK.network])
        self.assertLessEqual(set(MODELS), set(PUBLISHED))
        self.assertEqual({*MODELS, "classifier"}, {"squeezenet1_1", *RECIPES})
        for view in TASK.views:
            self.assertTrue(callable(getattr(views, f"view_{view}")))

    def test_a_checkpoint_of_earlier_commits(self):
        """Its keys, written by hand, build the network and fill it; nothing of it is measured."""
        shapes = {
            "encode.0": (3, 4, 9), "encode.1": (4, 8, 3), "encode.2": (8, 16, 3),
            "residual.0.first": (16, 16, 3), "residual.0.second": (16, 16, 3),
            "decode.0": (16, 8, 3), "decode.1": (8, 4, 3),
        }  # fmt: skip
        weights = {}
        for name, (inputs, outputs, side) in shapes.items():
            weights[f"{name}.conv.weight"] = torch.randn(outputs, inputs, side, side)
            weights[f"{name}.conv.bias"] = torch.randn(outputs)
            weights[f"{name}.bn.weight"] = weights[f"{name}.bn.bias"] = torch.randn(outputs)
        weights["output.weight"], weights["output.bias"] = torch.randn(3, 4, 9, 9), torch.randn(3)
        state = {"model_state": weights, "configs": {"width": 4, "blocks": 1}, "task": "style"}
        objective, network = TASK.restore(state)
        for name, value in network.state_dict().items():
            self.assertTrue(torch.equal(value, weights[name]), name)
        self.assertEqual((objective.ranks_by, objective.meter()), ("", None))
        with self.assertRaisesRegex(LabError, "configs do not fit the network 'transform'"):
            TASK.restore(state | {"configs": {"height": 4}})

    def test_help_imports_no_torch(self):
        """Nor does a wrong flag."""
        for script_name, flags in (
            ("style", ["--help"]), ("train", ["--task", "style", "--help"]),
            ("style", ["--steps", "0"]), ("train", ["--task", "style", "--size", "0"]),
        ):  # fmt: skip
            code = (
                f"import sys; sys.argv = {[f'{script_name}.py', *flags]!r}\n"
                f"from {script_name} import main\n"
                "try: main()\nexcept SystemExit: print('torch' in sys.modules, file=sys.stderr)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True
            )
            self.assertEqual(done.stderr.splitlines()[-1], "False", flags)


@dataclass(frozen=True)
class ToyConfig:
    width: int = 3
    depth: int = 1


class Toy(nn.Sequential):
    def __init__(self, config):
        super().__init__(nn.Conv2d(3, config.width, 1), nn.Conv2d(config.width, 3, 1), nn.Tanh())


class ScriptTest(ScriptCase):
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
        done = script_here("style.py", "--save_dir", self.base / "out", *flags)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    def refuse(self, code, words, *flags):
        if not {"--train", "--resume"} & set(flags):
            flags = ("--content", self.content, *flags)
        done = script_here("style.py", "--save_dir", self.base / "out", *flags)
        self.assert_refused(done, code, words)

    def test_lines_are_refused(self):
        """Before they are computed: enlarged, they would take gigabytes, and no JPEG holds them."""
        line, square = self.base / "line.png", self.base / "square.png"
        Image.new("RGB", (600, 2)).save(line)
        Image.new("RGB", (30, 30)).save(square)
        for content, style in ((line, square), (square, line)):
            done = script_here("style.py", "--content", content, "--style", style, "--weights",
                               self.weights, "--no_show")  # fmt: skip
            self.assert_refused(done, 1, "600x2 pixels is too narrow", "cut a part out of it")

    def test_a_picture_and_its_course(self):
        done = script(
            "style.py", "--content", self.content, "--save_dir", self.base / "out",
            "--style", self.style, "--weights", self.weights, "--steps", 5, "--size", 45,
            "--style_size", 40, "--start", "noise",
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"content [\d,]+, style [\d,]+, TV [\d,]+; in all")
        # Names say what was asked for: pictures of other flags stay.
        painted, strip = map(Path, re.findall(r"Saved (\S+)", done.stdout))
        self.assertEqual(painted.parent, self.base / "out/style")
        self.assertRegex(painted.name, r"^photo_waves_.*size_45_style_size_40_steps_5_start_noise")
        self.assertEqual(strip.name, f"{painted.stem}_steps.jpg")
        with Image.open(painted) as picture:
            self.assertEqual(picture.size, (60, 45))
        with Image.open(strip) as picture:
            self.assertGreater(picture.width, 4 * picture.height)

    def test_a_rate_that_is_too_high(self):
        """Kept within its bounds, the picture stays finite: what has grown are the losses."""
        flags = ("--style", self.style, "--weights", self.weights, "--size", 45, "--style_size",
                 40, "--steps", 4)  # fmt: skip
        for optim_type in ("lbfgs", "adam"):
            words = r"the losses have grown, from [\d,]+ to [\d,]+: .*lower --lr"
            wild = ("--optim_type", optim_type, "--lr", 1e30, "--save_dir", self.base / "out")
            done = script_here("style.py", "--content", self.content, *flags, *wild)
            self.assert_refused(done, 1, "lower --lr")
            self.assertRegex(done.stderr, words)
            self.assertIn("Saved", done.stdout)

    def test_pictures_of_more_pixels_than_memory(self):
        """They are taken smaller, of the same shape, whichever side is asked for; it is said."""
        whole = Image.new("RGB", (200, 100))
        for size, most, expected in (
            (None, 20_000, (100, 200)), (None, 5000, (50, 100)), (50, 5000, (50, 100)),
            (1000, 5000, (50, 100)), (20, 5000, (20, 40)),
        ):  # fmt: skip
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                taken = whole_picture(whole, size, Preprocess(), most, "a.png")
            self.assertEqual(tuple(taken.shape[2:]), expected)
            smaller = most == 5000 and size != 50 and size != 20
            self.assertEqual("a.png is taken at 100x50 instead of" in said.getvalue(), smaller)
        line = self.base / "line.png"
        Image.new("RGB", (140, 7)).save(line)
        flags = ("--weights", self.weights, "--steps", 1, "--style_size", 40)
        with mock.patch("tasks.style.results.MOST_VARIED", 40_000):
            said = self.call("--content", self.content, "--style", self.style, *flags,
                             "--size", 2000)  # fmt: skip
        self.assertIn("photo.png is taken at 231x173 instead of 2667x2000: 40,000 pixels", said)
        with mock.patch("tasks.style.losses.MOST_VARIED", 20_000):
            done = script_here("style.py", "--content", self.content, "--style", line, *flags,
                               "--size", 45, "--save_dir", self.base / "out")  # fmt: skip
        self.assertIn("line.png is taken at 632x32 instead of 800x40", done.stdout)

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
        # The start is the seed's.
        again = self.call("--style", self.style, "--start", "noise", *flags)
        self.assertEqual(re.search("from.*", again)[0], re.search("from.*", printed)[0])
        other = self.call("--style", self.style, "--start", "noise", "--seed", 1, *flags)
        self.assertNotEqual(re.search("from.*", other)[0], re.search("from.*", printed)[0])

    def test_bad_input(self):
        own = ("--weights", self.weights)
        fine = ("--style", self.style, *own)
        text = self.base / "text.jpg"
        text.write_text("no picture")
        for code, words, more in (
            (2, "give --style", ()),
            (2, "--style_weights takes 4 numbers", (*fine, "--style_weights", 1, 2)),
            (2, "needs --data_root, a folder of photographs", (*fine, "--train")),
            (2, "needs --style, a painting", (*own, "--train", "--data_root", self.photos)),
            (2, "--steps", (*fine, "--steps", 0)),
            (
                2,
                "without --train there is no use for --data_root, --epoch",
                (*fine, "--data_root", self.photos, "--epoch", 3),
            ),
            (
                2,
                "a training has no use for --content",
                (*fine, "--train", "--data_root", self.photos, "--content", self.content),
            ),
            (
                2,
                "--preset, --steps is of --style FILE",
                ("--ckpt_path", self.base / "empty", "--steps", 9, "--preset", "starry"),
            ),
            (1, "no image", ("--style", self.base / "absent.jpg", *own)),
            (1, "text.jpg: not an image", ("--style", text, *own)),
            (1, "is too small for the network", (*fine, "--size", 4, "--style_size", 40)),
            (1, "no file of weights", ("--style", self.style, "--weights", "absent.pth")),
            (1, "do not fit the network", (*fine, "--model", "vgg19")),
            (1, "python style.py --train", ("--ckpt_path", self.base / "empty")),
            (1, "python train.py", ("--ckpt_path", self.base / "empty", "--style", self.style)),
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

    def assert_same_weights(self, folder, other):
        """The last epochs of two runs are one and the same."""
        one, two = (checkpoint.load(checkpoint.find(f, "last")) for f in (folder, other))
        self.assertEqual(one["epoch"], two["epoch"])
        for name, weights in one["model_state"].items():
            self.assertTrue(torch.equal(weights, two["model_state"][name]), name)

    def test_a_network_for_one_style(self):
        """Training lowers the losses; interrupted, it goes on exactly; then one pass paints."""
        straight, stopped = self.base / "straight", self.base / "a stopped run"
        printed = self.call(*self.train(straight, "--epoch", 3))
        self.assertIn(f"python style.py --ckpt_path {straight}\n", printed)
        state = checkpoint.load(checkpoint.find(straight, "last"))
        history = state["history"]
        self.assertLess(history[-1]["loss"], history[0]["loss"] * 0.8)
        for row in history:
            self.assertAlmostEqual(row["content"] + row["style"] + row["tv"], row["loss"], 2)
        self.assertEqual((state["task"], state["configs"]["width"]), ("style", 4))
        self.assertEqual(len(json.loads((straight / "run.json").read_text())), 1)

        process = subprocess.Popen(
            [sys.executable, "style.py", *map(str, self.train(stopped, "--epoch", 3))],
            cwd=PROJECT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        while not list(stopped.glob("ckpt_epoch_1.pth")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertIn(f"Go on with: python style.py --resume '{stopped}", output)
        self.call("--resume", stopped)
        self.assert_same_weights(straight, stopped)
        self.assertEqual(len(json.loads((stopped / "run.json").read_text())), 2)

        self.call("--ckpt_path", straight, "--content", self.content)
        with Image.open(self.base / "out/style/photo_straight.jpg") as picture:
            self.assertEqual(picture.size, (80, 60))
        self.refuse(1, "needs 16 pixels", "--ckpt_path", straight, "--size", 9)
        self.refuse(1, "3 epochs already", "--resume", straight)

        # The run of another seed puts this one aside, whole.
        self.call(*self.train(straight, "--epoch", 1, "--seed", 1))
        self.assertEqual(len(list((straight / "previous_1").glob("ckpt_epoch_*.pth"))), 3)
        self.assertEqual(list(checkpoint.epochs(straight)), [1])
        other = checkpoint.load(straight / "ckpt_epoch_1.pth")["history"][0]["loss"]
        self.assertNotEqual(other, history[0]["loss"])

    def test_a_run_of_earlier_commits_goes_on(self):
        """One that logged the loss alone, and beside it what was never measured."""
        straight, old = self.base / "of two", self.base / "old"
        self.call(*self.train(straight, "--epoch", 2))
        state = checkpoint.load(straight / "ckpt_epoch_1.pth")
        for name in ("content", "style", "tv"):
            del state["history"][0][name]
        state["history"][0] |= {"val_loss": None, "val_accuracy": None}
        for name in ("schedule", "clip_norm", "ema"):
            state["settings"].pop(name, None)
        state["settings"]["epoch"] = 2
        old.mkdir()
        torch.save(state, old / "ckpt_epoch_1.pth")
        self.call("--resume", old)
        self.assert_same_weights(straight, old)
        self.assertTrue((old / "loss_and_acc.jpg").is_file())
        header, *rows = (old / "metrics.csv").read_text().splitlines()
        self.assertEqual(len(rows), 2)
        self.assertIn("content,style,tv", header)
        for epoch in (1, 2):  # the newest is painted with
            state = checkpoint.load(old / f"ckpt_epoch_{epoch}.pth")
            model = TransformNet(TransformConfig(4))
            model.load_state_dict(state["model_state"])
        pixels = torch.from_numpy(np.array(Image.open(self.content)))[None]
        with torch.inference_mode():
            expected = model.eval()(Preprocess().normalize(pixels))
        expected = Preprocess().denormalize(expected)[0].permute(1, 2, 0).numpy() * 255
        self.call("--ckpt_path", old, "--content", self.content)
        with Image.open(self.base / "out/style/photo_old.jpg") as picture:
            self.assertLess(np.abs(np.asarray(picture) - expected).mean(), 6)  # JPEG's

    def test_a_diverged_training(self):
        """Nothing is saved; what to go on from is named."""
        folder = self.base / "diverged"
        wild = ("--epoch", 3, "--lr", 1e30)
        self.refuse(1, "start anew with a lower --lr", *self.train(folder, *wild))
        self.assertEqual(checkpoint.epochs(folder), {})
        self.call(*self.train(folder, "--epoch", 1))
        good = folder / "ckpt_epoch_1.pth"
        self.refuse(1, f"lower --lr, then --resume {good}", "--resume", folder, *wild)
        self.assertEqual(list(checkpoint.epochs(folder)), [1])

    def test_runs_of_other_tasks(self):
        """One line says which script a run belongs to, whichever it is given to."""
        ours, signs = self.base / "ours", self.base / "theirs"
        self.call(*self.train(ours, "--epoch", 1))
        tested = script_here("test.py", "--ckpt_path", ours)
        self.assert_refused(tested, 2, "of style nothing is measured: give --image FILE")
        self.refuse(1, "leave out --style", "--ckpt_path", ours, "--style", self.style)
        signs.mkdir()
        model = Classifier(3, 5)
        state = {"model_state": model.state_dict(), "configs": vars(model.config)}
        torch.save(state, signs / "ckpt_epoch_1.pth")
        self.refuse(1, f"python train.py --resume {signs}/ckpt_epoch_1.pth", "--resume", signs)
        self.refuse(2, "holds no style of its own; give --style", "--ckpt_path", signs)
        other = models.mobilenet_v3_small()
        state = {"model_state": other.state_dict(), "configs": {"num_classes": 1000}}
        torch.save(state | {"network": "mobilenet_v3_small"}, signs / "ckpt_epoch_1.pth")
        more = ("--ckpt_path", signs, "--style", self.style)
        self.refuse(1, "holds a mobilenet_v3_small, and no recipe says", *more)

    def train_script(self, folder, *more):
        """Train through train.py with the flags of `train`; return what the script did."""
        flags = [flag for flag in self.train(folder, *more) if flag != "--train"]
        return script_here("train.py", "--task", "style", *flags, "--no_show")

    def test_train_py_does_what_style_py_does(self):
        """The same weights; either goes on with a run of the other, and with all its settings."""
        one, other = self.base / "by style.py", self.base / "by train.py"
        self.call(*self.train(one, "--epoch", 2))
        done = self.train_script(other, "--epoch", 2)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("python style.py --ckpt_path", done.stdout)
        self.assert_same_weights(one, other)
        done = script_here("train.py", "--resume", one, "--epoch", 3, "--no_show")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.call("--resume", other, "--epoch", 3)
        self.assert_same_weights(one, other)
        done = script_here("train.py", "--resume", one, "--width", 5, "--epoch", 4)
        self.assert_refused(done, 1, "another network: width is 4 there, 5 here")

        # Settings that train.py alone has flags for are kept by style.py.
        asked = ("--optim_type", "sgd", "--ema", 0.5, "--lr", 1e-6)
        done = self.train_script(self.base / "sgd", "--epoch", 1, *asked)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.call("--resume", self.base / "sgd", "--epoch", 2)
        settings = checkpoint.load(self.base / "sgd/ckpt_epoch_2.pth")["settings"]
        kept = [settings[name] for name in ("optim_type", "ema", "lr", "batch_size")]
        self.assertEqual(kept, ["sgd", 0.5, 1e-6, 2])
        done = self.train_script(self.base / "by heart", "--overfit_batch")
        self.assertIn("Learning 2 training images by heart", done.stdout)

    def test_a_run_is_looked_at_by_other_scripts(self):
        """test.py paints pictures, visualize.py shows them beside the photographs."""
        ours = self.base / "looked at"
        self.call(*self.train(ours, "--epoch", 1))
        other = self.base / "others"
        other.mkdir()
        Image.open(self.content).resize((33, 30)).save(other / "photo.png")
        done = script_here("test.py", "--ckpt_path", ours, "--image", self.content, other)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        for name, size in (("0000_photo.jpg", (80, 60)), ("0001_photo.jpg", (33, 30))):
            with Image.open(ours / "results" / name) as picture:
                self.assertEqual(picture.size, size)
        with mock.patch("tasks.style.results.MOST_PIXELS", 1200):
            done = script_here("test.py", "--ckpt_path", ours, "--image", self.content)
        self.assertIn("photo.png is taken at 40x30 instead of 80x60", done.stdout)
        with Image.open(ours / "results/0000_photo.jpg") as picture:
            self.assertEqual(picture.size, (40, 30))
        # In the precision that is asked for, as style.py does.
        more = ("--image", self.content, "--precision", "fp32")
        script_here("test.py", "--ckpt_path", ours, *more)
        self.call("--ckpt_path", ours, "--content", self.content)
        one, two = (
            np.asarray(Image.open(path))
            for path in (
                ours / "results/0000_photo.jpg",
                self.base / "out/style/photo_looked at.jpg",
            )
        )
        np.testing.assert_array_equal(one, two)

        shown = ("--type", "painted", "--ckpt_path", ours, "--save_dir", self.base / "views")
        for more, name in (((), "painted"), (("--image", self.content), "painted_image_photo.png")):
            done = script_here("visualize.py", *shown, *more)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            saved = Path(re.search(r"Saved (\S+)", done.stdout)[1])
            self.assertTrue(saved.is_file())
            self.assertEqual(saved.parent, self.base / "views/painted")
            self.assertTrue(saved.name.startswith(name))
        done = script_here("compare.py", ours, self.base / "looked at", "--no_show", "--save_dir",
                           self.base / "views")  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        header, _, row = done.stdout.splitlines()
        self.assertEqual(header, "| run | epochs | training loss | parameters | seconds |")
        loss = checkpoint.load(ours / "ckpt_epoch_1.pth")["history"][0]["loss"]
        self.assertTrue(row.startswith(f"| looked at | 1 | {loss:,.0f} | "), row)
        self.assertNotIn("not tested", done.stderr)
        done = script_here("visualize.py", *shown, "--image_idx", 2)
        self.assert_refused(done, 2, "--image_idx 2: the pictures are 0 to 1")

    def test_what_the_view_shows(self):
        """Each photograph beside what the network makes of it, and the painting."""
        ours = self.base / "viewed"
        self.call(*self.train(ours, "--epoch", 1))
        trained = load_trained(ours / "ckpt_epoch_1.pth", "cpu", "fp32")
        (picture,) = view_painted(ViewFlags(image=str(self.content)), trained)
        ((photograph, painted, style),) = picture.parts[0].tiles
        np.testing.assert_array_equal(photograph.image, np.asarray(Image.open(self.content)))
        np.testing.assert_array_equal(style.image, np.asarray(Image.open(self.style)))
        pixels = torch.from_numpy(photograph.image.copy())[None]
        with torch.inference_mode():
            expected = trained.network(Preprocess().normalize(pixels))[0].permute(1, 2, 0) / 2 + 0.5
        np.testing.assert_allclose(painted.image, expected, atol=1e-5)
        (picture,) = view_painted(ViewFlags(), trained)
        captions = [[tile.caption for tile in row] for row in picture.parts[0].tiles]
        self.assertEqual(captions, [["china", "painted", "style"], ["flower", "painted"]])

    def test_a_network_more(self):
        """A class, a config and a line: it is trained, goes on, and paints."""
        folder = self.base / "toy"
        with mock.patch.dict(NETWORKS, transform=Design(ToyConfig, Toy)):
            done = self.train_script(folder, "--epoch", 1)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            state = checkpoint.load(folder / "ckpt_epoch_1.pth")
            self.assertEqual(state["configs"], {"width": 4, "depth": 1})
            self.call("--resume", folder, "--epoch", 2)
            done = script_here("test.py", "--ckpt_path", folder, "--image", self.content)
            self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_two_processes(self):
        """Of torchrun, which train.py takes: they share the photographs, and all of them count."""
        one, two = self.base / "of one", self.base / "of two"
        exact = ("--epoch", 1, "--precision", "fp32", "--optim_type", "sgd", "--lr", 1e-12,
                 "--batch_size", 4)  # fmt: skip
        self.train_script(one, *exact)
        flags = [flag for flag in self.train(two, *exact) if flag != "--train"]
        done = script("train.py", "--task", "style", *flags, processes=2)
        self.assertEqual(done.returncode, 0, done.stderr)
        states = [checkpoint.load(folder / "ckpt_epoch_1.pth") for folder in (one, two)]
        alone, shared = (state["history"][0]["loss"] for state in states)
        self.assertAlmostEqual(shared / alone, 1, delta=1e-5)
        # And what sgd remembers of the gradients.
        ours, theirs = (
            torch.cat([own["momentum_buffer"].flatten() for own in kept["state"].values()])
            for kept in (state["optimizer_state"] for state in states)
        )
        self.assertLess((ours - theirs).norm(), 1e-3 * ours.norm())

    def test_one_process_alone(self):
        place = {"MASTER_ADDR": "localhost", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "0"}
        done = script("style.py", "--style", self.style, env=place)
        self.assert_refused(done, 2, "start it without torchrun")
