"""What benchmark.py measures: contestants that do what they say, figures that are what they say.

Clocks are stopped: each look at one is a second after the last, so that a rate is a number of
images, and can be held against what the network was given.
"""

import contextlib
import itertools
import math
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.testing import assert_close
from torchvision.datasets import MNIST

import speed
from datasets import SOURCES, get_data_loader
from lab.runtime import Runtime
from looking.insight import saliency_maps
from networks import Classifier, MnistCNN
from speed import (
    attention,
    detection,
    diffusion,
    mnist,
    saliency,
    segmentation,
    start,
    style,
    testing,
    training,
    video,
)
from tasks.detection.detector import Detector
from tasks.diffusion.networks import AutoencoderConfig, DiffusionConfig
from tasks.segmentation.augment import Windows
from tasks.segmentation.resunet import ResUNet
from tests.support import PROJECT, ScriptCase, environment, make_images, script_here

CPU = Runtime(torch.device("cpu"))
BF16 = Runtime(torch.device("cpu"), torch.bfloat16)


def stopped_clock(seconds: int = 1) -> contextlib.AbstractContextManager:
    """Make so many seconds pass with each look at the clock."""
    return mock.patch("time.perf_counter", side_effect=itertools.count(0, seconds))


def take_turns(
    turns: dict[str, Callable[[], float]], batches: list
) -> dict[str, tuple[float, list]]:
    """Return what each turn counts in a second, and what was noted in `batches` during it."""
    made = {}
    for name, turn in turns.items():
        batches.clear()
        with stopped_clock():
            rate = turn()
        made[name] = rate, list(batches)
    return made


@contextlib.contextmanager
def seen_images(trained: bool) -> Iterator[list[int]]:
    """Collect the number of images of every batch that a network is given, to train on or not."""
    batches = []

    def note(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        if isinstance(module, Classifier | MnistCNN) and output.requires_grad == trained:
            batches.append(len(inputs[0]))

    with register_module_forward_hook(note):
        yield batches


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    with torch.inference_mode():
        return (model.eval()(images).argmax(1) == labels).float().mean().item()


class ArithmeticTest(unittest.TestCase):
    def test_every_round_is_compared_with_itself(self):
        """The median of 1/1, 8/2, 12/6; the medians' ratio would be 4, the means' 2.33."""
        figures = {"a": [1, 8, 12], "b": [1, 2, 6]}
        self.assertEqual(speed.ratio(figures, "a", "b"), "2.00")
        self.assertEqual(speed.ratio(figures, "b", "a"), "0.50")

    def test_contestants_take_turns(self):
        order = []

        def turn(name: str, first: float) -> Callable[[], float]:
            figures = itertools.count(first)
            return lambda: order.append(name) or next(figures)

        figures = speed.take_turns({"a": turn("a", 1.0), "b": turn("b", 10.0)}, rounds=3)
        self.assertEqual("".join(order), "ababab")
        self.assertEqual(figures, {"a": [1, 2, 3], "b": [10, 11, 12]})


class ReportTest(unittest.TestCase):
    """Made-up figures, and the lines they must give."""

    def lines(self, section, figures) -> list[str]:
        return section.report(figures, CPU).splitlines()

    def test_training(self):
        figures = {}
        for size in training.BATCH_SIZES:
            for name, rate in zip(
                (training.BARE, training.OWN, training.AUGMENTED, training.PLAIN),
                (1000, 900, 800, 300),
                strict=True,
            ):
                figures[name, size] = [rate - size, 10 * (rate - size), 1]
        self.assertEqual(
            self.lines(training, figures),
            [
                "| training, batch | (a) bare step | (b) train.py | (b) --augment | (c) plain loop "
                "| b/a | b augmented/a | b/c |",
                "| --- | --- | --- | --- | --- | --- | --- | --- |",
                "| 128 | 872 | 772 | 672 | 172 | 0.89 | 0.77 | 4.49 |",
                "| 32 | 968 | 868 | 768 | 268 | 0.90 | 0.79 | 3.24 |",
            ],
        )

    def test_pairs(self):
        for section, own, plain, title in (
            (testing, "test.py", "batch_size=1", "testing"),
            (mnist, "(b) train.py", "(c) plain loop", "MNIST, batch 64"),
            (saliency, "saliency_maps", "image by image", "saliency of 32 images"),
        ):
            with self.subTest(section.__name__):
                figures = {plain: [10, 100, 1000], own: [40, 1300, 5000]}
                self.assertEqual(
                    self.lines(section, figures),
                    [
                        f"| {title} | images/s | ratio |",
                        "| --- | --- | --- |",
                        f"| {own} | 1,300 | 5.00 |",
                        f"| {plain} | 100 | 1.00 |",
                    ],
                )

    def test_attention(self):
        figures = {attention.OWN: [4, 8, 3], attention.NAIVE: [1, 1, 1]}
        memory = {attention.OWN: 2 * 2**20, attention.NAIVE: 2**30}
        with mock.patch.object(attention, "extra_memory", lambda name, *_: memory[name]):
            _, _, own, naive = self.lines(attention, figures)
        self.assertEqual(own, "| NonLocalBlock | 4.00 | 4.00 | 2 | 1/512.0 |")
        self.assertEqual(naive, "| softmax(q k^T) v | 1.00 | 1.00 | 1,024 | 1/1.0 |")

    def test_video(self):
        """The loop over the bare step of each network, and the block's memory."""
        figures = {(training.BARE, name): [100, 200, 50] for name in video.NETWORKS}
        figures |= {(training.OWN, name): [90, 190, 49] for name in video.NETWORKS}
        memory = {attention.OWN: 3 * 2**20, attention.NAIVE: 36 * 2**20}
        with mock.patch.object(video, "extra_memory", lambda name, *_: memory[name]):
            lines = self.lines(video, figures)
        self.assertEqual(lines[2], "| cnn3d | 100 | 90 | 0.95 |")
        self.assertEqual(lines[-2:], ["| NonLocalBlock | 3 | 1/12.0 |",
                                      "| softmax(q k^T) v | 36 | 1/1.0 |"])  # fmt: skip

    def test_video_contestants(self):
        """They are trained on clips of the shape that is said, and work."""
        with mock.patch.multiple(video, NETWORKS=("early_fusion",), BATCH_SIZE=2, CLIPS=4):
            turns = video.contestants(Path(), CPU)
        kinds = (training.BARE, training.OWN)
        self.assertEqual(list(turns), [(kind, "early_fusion") for kind in kinds])
        for turn in turns.values():
            self.assertGreater(turn(), 0)

    def test_style(self):
        """Of seconds, a part's share of the whole."""
        figures = {style.NETWORK: [1, 2, 3], style.PRODUCTS: [2, 3, 5], style.WHOLE: [4, 4, 6]}
        _, _, *rows = self.lines(style, figures)
        self.assertEqual(
            rows,
            [
                "| network forward and backward | 2.00 | 0.50 |",
                "| and the products of the Gram matrices | 3.00 | 0.75 |",
                "| style.py | 4.00 | 1.00 |",
            ],
        )

    def test_detection(self):
        """Seconds, and how many times as long torchvision's takes."""
        figures = {"tiny_ssd": [0.1, 0.2, 0.4], detection.TORCHVISION: [0.2, 0.3, 0.4]}
        _, _, own, published = self.lines(detection, figures)
        self.assertEqual(own, "| tiny_ssd | 0.200 | 1.50 |")
        self.assertEqual(published, f"| {detection.TORCHVISION} | 0.300 | 1.00 |")

    def test_segmentation(self):
        """Rates, and seconds of a frame."""
        figures = {segmentation.OWN: [9, 18, 30], segmentation.BARE: [10, 20, 40],
                   segmentation.WHOLE: [0.1, 0.2, 0.7]}  # fmt: skip
        _, _, own, bare, _, frame = self.lines(segmentation, figures)
        self.assertEqual(own, "| train.py --augment | 18.0 | 0.90 |")
        self.assertEqual(bare, "| bare step | 20.0 | 1.00 |")
        self.assertEqual(frame, "A frame of 480x360: 0.200 s")

    def test_diffusion(self):
        """Rates, and seconds of a picture."""
        figures = {diffusion.OWN: [9, 18, 30], diffusion.BARE: [10, 20, 40],
                   diffusion.PICTURE: [0.1, 0.2, 0.7]}  # fmt: skip
        _, _, own, bare, _, picture = self.lines(diffusion, figures)
        self.assertEqual(own, "| train.py | 18.0 | 0.90 |")
        self.assertEqual(bare, "| bare step | 20.0 | 1.00 |")
        self.assertEqual(picture, "A picture of 64x64, 25 steps, alone: 0.200 s")

    def test_start(self):
        figures = {start.HELP: [0.1, 0.1, 1], start.TORCH: [2, 2, 4], start.STEP: [3, 5, 3]}
        _, _, *rows = self.lines(start, figures)
        self.assertEqual(
            rows,
            [
                "| `train.py --help` | 0.10 | 0.05 |",
                "| `import torch` | 2.00 | 1.00 |",
                "| `train.py --bn --stn`, one step | 3.00 | 1.50 |",
            ],
        )


class TrainingTest(unittest.TestCase):
    """Three classes of squares, 30 images of each, in batches of 16."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_images(cls.root, {"train": 30, "test": 7})

    def contestants(self, runtime: Runtime) -> dict[str, tuple[nn.Module, speed.Turn, list[int]]]:
        """Return each with its network, and the batches of one turn."""
        own = training.own_loader(self.root, 16, runtime)
        augmented = training.own_loader(self.root, 16, runtime, augment=True)
        plain = training.plain_loader(self.root, "train", 16, num_workers=0)
        made = {}
        for name, make, loader, batches in (
            ("bare", training.bare_turns, own, [16] * 6),
            ("own", training.own_turns, own, [16, 16, 16, 16, 16, 10]),
            ("augmented", training.own_turns, augmented, [16, 16, 16, 16, 16, 10]),
            ("plain", training.plain_turns, plain, [16, 16, 16, 16, 10]),  # one before the clock
        ):
            model = training.classifier()
            made[name] = model, make(model, loader, runtime), batches
        return made

    def test_every_image_is_counted_once(self):
        for name, (_, turn, batches) in self.contestants(CPU).items():
            with self.subTest(name), stopped_clock(), seen_images(trained=True) as seen:
                self.assertEqual(turn(), sum(batches))
                self.assertEqual(seen, batches)

    def test_gradients_are_those_of_the_batch(self):
        """What an earlier step has left is gone before the backward pass."""
        for name, (model, turn, batches) in self.contestants(CPU).items():
            weight, given, alone = model.fc_net[4].weight, [], []
            weight.register_hook(given.append)
            weight.register_post_accumulate_grad_hook(
                lambda w, given=given, alone=alone: alone.append(torch.equal(w.grad, given[-1]))
            )
            turn()
            with self.subTest(name):
                self.assertGreaterEqual(len(alone), len(batches))
                self.assertTrue(all(alone))

    def test_all_learn(self):
        """After five turns, the bare step knows its batch, the others every image."""
        every = next(iter(get_data_loader(self.root, "train", 32, 90)))
        for name, (model, turn, _) in self.contestants(CPU).items():
            images, labels = every
            if name == "bare":  # the first that the loader gave
                loader = training.own_loader(self.root, 16, CPU)
                images, labels = next(iter(loader))
            with self.subTest(name):
                self.assertLess(accuracy(training.classifier(), images, labels), 0.7)
                for _ in range(5):
                    turn()
                self.assertGreater(accuracy(model, images, labels), 0.9)

    def test_all_train_the_same_network(self):
        """From the same weights, at the same rate; --bn --stn of train.py, for 26 classes."""
        first, second = training.classifier(), training.classifier()
        self.assertEqual(sum(p.numel() for p in first.parameters()), 1_001_440)
        for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
            self.assertTrue(torch.equal(a, b))

    def test_precision(self):
        """bf16 where train.py would take it; the plain loop is fp32 everywhere."""
        for name, (model, turn, _) in self.contestants(BF16).items():
            types = set()
            model.conv_net[3].conv.register_forward_hook(
                lambda module, inputs, output, types=types: types.add(output.dtype)
            )
            turn()
            with self.subTest(name):
                self.assertEqual(types, {torch.float32 if name == "plain" else torch.bfloat16})

    def test_loaders_give_the_same_pictures(self):
        own = next(iter(get_data_loader(self.root, "test", 32, 21)))
        plain = next(iter(training.plain_loader(self.root, "test", 21, num_workers=0)))
        assert_close(own[0].contiguous(), plain[0])
        self.assertTrue(torch.equal(own[1], plain[1]))

    def test_training_images_are_shuffled_and_tests_not(self):
        for mode, shuffled in (("train", True), ("test", False)):
            loader = training.plain_loader(self.root, mode, 90, num_workers=0)
            _, first = next(iter(loader))
            _, second = next(iter(loader))
            self.assertEqual(not torch.equal(first, second), shuffled)

    def test_who_gets_what(self):
        """Each name its loop, each loop its loader; what they are made of stands in for them."""
        loops = {
            training.BARE: "bare",
            training.OWN: "own",
            training.AUGMENTED: "own",
            training.PLAIN: "plain",
        }
        with contextlib.ExitStack() as stack:
            for attribute, value in (
                ("BATCH_SIZES", (8, 4)),
                ("IMAGES_A_CLASS", {"train": 1, "val": 1, "test": 1}),
                ("bare_turns", lambda *given: ("bare", *given)),
                ("own_turns", lambda *given: ("own", *given)),
                ("plain_turns", lambda *given: ("plain", *given)),
            ):
                stack.enter_context(mock.patch.object(training, attribute, value))
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            made = training.contestants(folder, CPU)
            again = training.contestants(folder, CPU)  # the signs are drawn once
            self.assertEqual(made.keys(), again.keys())
            self.assertEqual(len(made), 8)
            for (name, size), (loop, model, loader, runtime) in made.items():
                with self.subTest(name=name, size=size):
                    self.assertEqual(loop, loops[name])
                    self.assertIsInstance(model, Classifier)
                    self.assertIs(runtime, CPU)
                    self.assertEqual(len(loader.dataset), 26)
                    self.assertEqual(len(next(iter(loader))[1]), size)
                    self.assertEqual(loader.num_workers, 2 if loop == "plain" else 0)
                    augmented = getattr(loader.dataset, "augment", None) is not None
                    self.assertEqual(augmented, name == training.AUGMENTED)


class TestingTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_images(cls.root, {"train": 1, "test": 7})

    def test_every_image_is_counted_once(self):
        """By one, no more than SINGLES of them; the network stays as it is."""
        model = training.classifier()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        batches = get_data_loader(self.root, "test", 32, 16)
        singles = training.plain_loader(self.root, "test", 1, num_workers=0)
        for limit, turn, expected in (
            (260, testing.own_turns(model, batches, CPU), [16, 5]),
            (260, testing.plain_turns(model, singles, CPU), [1] * 21),
            (9, testing.plain_turns(model, singles, CPU), [1] * 9),
        ):
            model.train()
            with (
                mock.patch.object(testing, "SINGLES", limit),
                stopped_clock(),
                seen_images(trained=False) as seen,
            ):
                self.assertEqual(turn(), sum(expected))
            self.assertEqual(seen, expected)
            self.assertFalse(model.training)
        for key, value in model.state_dict().items():
            self.assertTrue(torch.equal(value, before[key]), key)


class MnistTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.enterClassContext(mock.patch.object(mnist, "IMAGES", {"train": 1500, "t10k": 10}))
        mnist.write_files(cls.root)

    def test_files_are_those_of_mnist(self):
        """As torchvision reads them: scikit-learn's 1,295 training digits, and over again."""
        digits = SOURCES["digits"].read(None, "train", None)
        for train, count in ((True, 1500), (False, 10)):
            read = MNIST(self.root, train=train)
            order = np.arange(count) % len(digits.labels)
            self.assertTrue(torch.equal(read.data, digits.images[order].squeeze(3)))
            self.assertTrue(torch.equal(read.targets, digits.labels[order]))

    def test_loaders_give_the_same_pictures(self):
        """train.py's, that hold some out for validation, are among the plain ones."""
        own, plain = mnist.own_loader(self.root, CPU), mnist.plain_loader(self.root)
        self.assertEqual((len(own.dataset), len(plain.dataset)), (1349, 1500))
        for loader in (own, plain):
            self.assertEqual(len(next(iter(loader))[1]), mnist.BATCH_SIZE)
        plain_images = torch.stack([plain.dataset[index][0] for index in range(100)])
        own_images, _ = own.dataset.__getitems__(range(80))
        for image in own_images:
            self.assertLess((plain_images - image).abs().flatten(1).amax(1).min(), 1e-5)

    def test_every_image_is_counted_once(self):
        for make, loader, total in (
            (training.own_turns, mnist.own_loader(self.root, CPU), 1349),
            (training.plain_turns, mnist.plain_loader(self.root), 1500 - 64),
        ):
            turn = make(mnist.network(), loader, CPU)
            with stopped_clock(), seen_images(trained=True) as seen:
                self.assertEqual(turn(), total)
            self.assertEqual(sum(seen), total)


class AttentionTest(unittest.TestCase):
    def test_both_compute_the_same(self):
        x = torch.randn(2, attention.CLIPS[1], 2, 4, 4)
        results = []
        for name in (attention.OWN, attention.NAIVE):
            clips = x.clone().requires_grad_()
            y = attention.make_forward(name, CPU.device, clips.shape[1])(clips)
            y.square().sum().backward()
            results.append((y.detach(), clips.grad))
        for own, naive in zip(*results, strict=True):
            assert_close(own, naive, rtol=1e-4, atol=1e-4)
        self.assertGreater((results[0][0] - x).abs().max(), 0.01)  # untrained, but no identity

    def test_clips_are_counted(self):
        with mock.patch.object(attention, "CLIPS", (3, 8, 2, 4, 4)):
            for turn in attention.contestants(Path(), CPU).values():
                backward = torch.Tensor.backward
                with (
                    stopped_clock(),
                    mock.patch.object(
                        torch.Tensor, "backward", autospec=True, side_effect=backward
                    ) as backwards,
                ):
                    self.assertEqual(turn(), 3)
                backwards.assert_called_once()

    @unittest.skipUnless(Path("/proc/self/status").exists(), "reads the peak from Linux's /proc")
    def test_memory(self):
        """At 4,096 positions, the naive form holds two matrices of 64 MiB, the block none."""
        shape = (1, attention.CLIPS[1], 4, 32, 32)
        own, naive = (
            attention.extra_memory(name, "cpu", shape) for name in (attention.OWN, attention.NAIVE)
        )
        matrix = 4 * 4096**2
        self.assertLess(own, matrix)
        self.assertGreater(naive, 2 * matrix)
        self.assertLess(naive, 6 * matrix)

    def test_memory_is_unknown_elsewhere(self):
        with mock.patch.object(Path, "exists", return_value=False):
            self.assertTrue(math.isnan(attention.resident_bytes("VmRSS")))


class SaliencyTest(unittest.TestCase):
    def test_both_compute_the_same(self):
        model = training.classifier().eval()
        images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 5, 25])
        own = saliency_maps(model, images, labels)
        assert_close(saliency.one_by_one(model, images, labels), own, rtol=1e-3, atol=1e-5)

    def test_images_are_counted(self):
        given = []

        def maps(model, images, labels):
            given.append((model.training, len(images), len(labels)))

        with mock.patch.object(saliency, "IMAGES", 5):
            turn = saliency.turns(maps, CPU)
            with stopped_clock():
                self.assertEqual(turn(), 5)
        self.assertEqual(set(given), {(False, 5, 5)})

    def test_who_does_what(self):
        with mock.patch.object(saliency, "turns", lambda maps, runtime: maps):
            made = saliency.contestants(Path(), CPU)
        self.assertEqual(made, {saliency.OWN: saliency_maps, saliency.PLAIN: saliency.one_by_one})


class StyleTest(unittest.TestCase):
    def test_parts_of_a_step(self):
        """STEPS passes through the network; the products of its four style layers where said."""
        pools, counts = [], {}  # SqueezeNet pools twice on its way to these layers
        backward = torch.autograd.backward
        with (
            mock.patch.object(style, "PICTURE", 48),
            mock.patch.object(style, "STEPS", 3),
            mock.patch.object(style, "gram_matrix", side_effect=style.gram_matrix) as products,
            mock.patch.object(torch.autograd, "backward", side_effect=backward) as backwards,
            register_module_forward_hook(
                lambda module, *_: pools.append(1) if isinstance(module, nn.MaxPool2d) else None
            ),
        ):
            for name, turn in style.contestants(Path(), CPU).items():
                pools.clear()
                products.reset_mock()
                backwards.reset_mock()
                turn()
                counts[name] = len(pools) // 2, products.call_count, backwards.call_count
        self.assertEqual(counts[style.NETWORK], (3, 0, 3))
        self.assertEqual(counts[style.PRODUCTS], (3, 3 * 4, 3))
        passes, _, steps = counts[style.WHOLE]
        self.assertEqual(steps, 3)
        self.assertIn(passes, (4, 5))  # the content picture's own, and the losses at the end

    def test_seconds(self):
        with (
            mock.patch.object(style, "PICTURE", 48),
            mock.patch.object(style, "STEPS", 1),
            mock.patch.object(style, "transfer"),
        ):
            for turn in style.contestants(Path(), CPU).values():
                with stopped_clock(4):
                    self.assertEqual(turn(), 4)


class StartTest(unittest.TestCase):
    """On a small folder of images, through the real script."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        make_images(cls.root, {"train": 4, "val": 2})
        cls.flags = ["--dataset", "folder", "--data_root", str(cls.root), "--device", "cpu"]

    def test_ends_after_the_first_step(self):
        """Two steps make an epoch of 12 images, but no epoch is saved."""
        folder = self.root / "run"
        code = start.UNTIL_FIRST_STEP
        arguments = ["-c", code, *self.flags, "--batch_size", "8", "--ckpt_path", str(folder)]
        seconds = start.process_turns(arguments, "first step done")()
        self.assertGreater(seconds, 0.1)
        self.assertIn("on 12 train", (folder / "log.txt").read_text())
        self.assertFalse(list(folder.glob("*.pth")))

    def test_nothing_is_imported_that_no_step_needs(self):
        """Each of these costs tenths of a second, the compiler more than one."""
        code = start.UNTIL_FIRST_STEP.replace('"first step done"', '" ".join(sys.modules)')
        arguments = ["-c", code, *self.flags, "--ckpt_path", str(self.root / "imports")]
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=PROJECT, env=environment(), capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        modules = set(done.stdout.splitlines()[-1].split())
        self.assertIn("torch", modules)
        unused = {"torch._dynamo", "torchvision", "matplotlib", "sklearn", "scipy", "tensorboard"}
        self.assertFalse(modules & unused)

    def test_a_run_that_makes_no_step_has_no_time(self):
        with self.assertRaisesRegex(RuntimeError, "ended without 'first step done'"):
            start.first_step_turns(["--help"])()
        with self.assertRaises(subprocess.CalledProcessError):
            start.process_turns(["-c", "raise SystemExit(3)"])()

    def test_who_does_what(self):
        """The flags of the main job, on the built-in data, which is drawn whole."""
        commands = []
        with (
            mock.patch.object(start.signs, "draw_dataset") as draw,
            mock.patch.object(
                start, "process_turns", lambda *given: lambda: commands.append(given)
            ),
        ):
            for turn in start.contestants(self.root, CPU).values():
                turn()
        draw.assert_called_once_with(self.root / "built_in")
        warm_up, show_help, import_torch, step = commands
        self.assertEqual(show_help, ([str(start.PROJECT / "train.py"), "--help"],))
        self.assertEqual(import_torch, (["-c", "import torch"],))
        for arguments, said in (warm_up, step):
            self.assertEqual(said, "first step done")
            self.assertEqual(
                arguments[1:7],
                [
                    start.UNTIL_FIRST_STEP, "--bn", "--stn",
                    "--data_root", str(self.root / "built_in"), "--device",
                ],
            )  # fmt: skip
        self.assertNotEqual(warm_up[0][-1], step[0][-1])  # runs of their own


class DetectionTest(unittest.TestCase):
    def test_who_does_what(self):
        """Each searches one picture, whole, as often; a turn is the seconds of one search."""
        seen = []

        def note(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(module, Detector):
                seen.append((module.training, tuple(inputs[0].shape)))

        with (
            mock.patch.object(detection, "SIZE", (64, 96)),
            mock.patch.object(detection, "SEARCHES", 3),
            register_module_forward_hook(note),
        ):
            turns = detection.contestants(Path(), CPU)
            self.assertEqual(list(turns), ["tiny_ssd", "center_net", detection.TORCHVISION])
            for name, turn in turns.items():
                seen.clear()
                with stopped_clock():
                    self.assertAlmostEqual(turn(), 1 / 3, msg=name)
                self.assertEqual(seen, [(False, (1, 3, 64, 96))] * 3, name)


class SegmentationTest(unittest.TestCase):
    def test_who_does_what(self):
        """As many windows in both ways to train, and frames one by one; rates and seconds."""
        batches = []

        def note(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
            if isinstance(module, ResUNet):
                batches.append((module.training, tuple(inputs[0].shape)))

        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(segmentation, "PICTURES", 2),
            mock.patch.object(segmentation, "WINDOWS", 17),
            mock.patch.object(segmentation, "SIZE", (64, 96)),
            mock.patch.object(segmentation, "FRAMES", 2),
            mock.patch.object(segmentation, "FRAME", (48, 60)),
            mock.patch.object(
                segmentation, "Windows", lambda **more: Windows(size=(32, 64), **more)
            ),
            register_module_forward_hook(note),
        ):
            made = take_turns(segmentation.contestants(Path(folder), CPU), batches)
        batch = (32, 3, 32, 64)
        self.assertEqual(made[segmentation.BARE], (64, [(True, batch)] * 2))
        rate, seen = made[segmentation.OWN]
        self.assertEqual(rate, 34)
        self.assertEqual(seen[:2], [(True, batch), (True, (2, *batch[1:]))])
        self.assertEqual(made[segmentation.WHOLE], (0.5, [(False, (1, 3, 64, 64))] * 2))


class DiffusionTest(unittest.TestCase):
    def test_who_does_what(self):
        """As many latents in both ways to train, and pictures one by one, each with guidance."""
        batches = []

        def note(module: nn.Module, inputs: tuple, output: object) -> None:
            if isinstance(module, UNet2DConditionModel):
                batches.append((module.training, tuple(inputs[0].shape)))

        small = DiffusionConfig(
            AutoencoderConfig(channels=(8, 8, 8, 8), groups=4, latent_channels=4), 100,
            channels=(16, 16), heads=2, groups=4, text_width=16, text_heads=2, text_layers=1,
        )  # fmt: skip
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(diffusion, "DiffusionConfig", lambda *_: small),
            mock.patch.object(diffusion, "BATCHES", 2),
            mock.patch.object(diffusion, "PICTURES", 2),
            register_module_forward_hook(note),
        ):
            made = take_turns(diffusion.contestants(Path(folder), CPU), batches)
        size = diffusion.FIELD.defaults["batch_size"]
        batch = (size, 4, 8, 8)
        rate, seen = made[diffusion.BARE]
        self.assertEqual((rate, [shape for _, shape in seen]), (2 * size, [batch] * 2))
        rate, seen = made[diffusion.OWN]
        self.assertEqual((rate, [shape for _, shape in seen[:2]]), (2 * size, [batch] * 2))
        rate, seen = made[diffusion.PICTURE]
        self.assertEqual((rate, seen), (0.5, [(False, (2, 4, 8, 8))] * 50))


class ScriptTest(ScriptCase):
    def test_every_section(self):
        """They are modules with contestants and a report; the script runs those asked for."""
        made = []
        with contextlib.ExitStack() as stack:
            for name in speed.SECTIONS:
                section = getattr(__import__(f"speed.{name}"), name)

                def contestants(folder, runtime, name=name):
                    made.append(name)
                    return {name: lambda: 7.0}

                def report(figures, runtime, name=name):
                    return f"{name} {figures[name]} {runtime.device.type}"

                for function in (contestants, report):
                    patch = mock.patch.object(section, function.__name__, function)
                    stack.enter_context(patch)
            every = script_here("benchmark.py", "--rounds", "2", "--device", "cpu")
            one = script_here("benchmark.py", "--rounds", "3", "--only", "mnist")
        self.assertEqual((every.returncode, one.returncode), (0, 0), every.stderr + one.stderr)
        self.assertEqual(made, [*speed.SECTIONS, "mnist"])
        head, *rest = every.stdout.splitlines()
        self.assertRegex(head, r"^torch \S+, cpu, \d+ threads, (bf16|fp32), 2 rounds$")
        self.assertEqual(
            rest, [line for name in speed.SECTIONS for line in ("", f"{name} [7.0, 7.0] cpu")]
        )
        self.assertIn("mnist [7.0, 7.0, 7.0]", one.stdout)
        self.assertNotIn("testing", one.stdout)

    def test_unknown_section(self):
        self.assert_refused(script_here("benchmark.py", "--only", "nothing"), 2, "nothing")


if __name__ == "__main__":
    unittest.main()
