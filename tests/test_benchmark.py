"""What benchmark.py measures: contestants that do what they say, figures that are what they say.

Clocks are stopped: each look at one is a second after the last, so that one over the seconds of an
input is a number of inputs, and can be held against what the network was given.
"""

import contextlib
import copy
import itertools
import math
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
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
import tasks.diffusion.networks
import tasks.segmentation.data
from datasets import SOURCES, get_data_loader
from lab.learner import Learner
from lab.runtime import Runtime
from looking.insight import saliency_maps
from networks import Classifier, MnistCNN
from speed import attention, cases, inputs, loop, saliency, start, turns
from speed.cases import AUGMENTED, BARE, OWN, PLAIN, Case
from tasks.detection.detector import Detector
from tasks.diffusion.networks import AutoencoderConfig
from tasks.segmentation.networks import ResUNet
from tasks.video.networks import EarlyFusion
from tests.support import PROJECT, ScriptCase, environment, make_images, script_here
from world import captions, clips, signs
from world.street import streets_of

CPU = Runtime(torch.device("cpu"))
BF16 = Runtime(torch.device("cpu"), torch.bfloat16)


def stopped_clock(seconds: int = 1) -> contextlib.AbstractContextManager:
    """Make so many seconds pass with each look at the clock."""
    return mock.patch("time.perf_counter", side_effect=itertools.count(0, seconds))


def counted(turn: speed.turns.Turn) -> float:
    """Return the inputs that a turn says it has had, in the one second that it takes."""
    with stopped_clock():
        return 1 / turn()


def take_turns(contestants: dict[object, turns.Turn], batches: list) -> dict[object, tuple]:
    """Return what each turn counts, and what was noted in `batches` during it."""
    made = {}
    for key, turn in contestants.items():
        batches.clear()
        made[key] = round(counted(turn), 6), list(batches)
    return made


@contextlib.contextmanager
def seen(kind: type, note: Callable[..., object]) -> Iterator[list]:
    """Collect a note of every batch that networks of some kind are given.

    Args:
        note: (network, inputs, output) to what is to be noted; None for nothing.
    """
    batches = []

    def hook(module: nn.Module, inputs: tuple, output: object) -> None:
        if isinstance(module, kind) and (noted := note(module, inputs, output)) is not None:
            batches.append(noted)

    with register_module_forward_hook(hook):
        yield batches


def seen_images(trained: bool) -> contextlib.AbstractContextManager[list[int]]:
    """Collect the number of images of every batch that a network is given, to train on or not."""

    def note(network: nn.Module, inputs: tuple, output: torch.Tensor) -> int | None:
        return len(inputs[0]) if output.requires_grad == trained else None

    return seen(Classifier | MnistCNN, note)


def seen_shapes(kind: type) -> contextlib.AbstractContextManager[list]:
    """Collect of every batch whether the network is training, and its shape."""
    return seen(kind, lambda network, inputs, _: (network.training, tuple(inputs[0].shape)))


def small(**drawn: Callable[[Path], None]) -> contextlib.AbstractContextManager:
    """Have cases draw less than they measure."""
    return mock.patch.dict(cases.DRAWN, {name.replace("__", "/"): d for name, d in drawn.items()})


ONE_SIGN = partial(signs.draw_dataset, splits={"train": 1, "val": 1, "test": 1})
SMALL_STREETS = partial(streets_of((184, 320)), splits={"train": 2, "val": 1})


class FolderCase(unittest.TestCase):
    """With a folder of its own."""

    @classmethod
    def setUpClass(cls):
        cls.root = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))


class ArithmeticTest(unittest.TestCase):
    def test_every_round_is_compared_with_itself(self):
        """The median of 1/1, 8/2, 12/6; the medians' ratio would be 4, the means' 2.33."""
        figures = {"a": [1, 8, 12], "b": [1, 2, 6]}
        self.assertEqual(turns.ratio(figures, "a", "b"), "2.00")
        self.assertEqual(turns.ratio(figures, "b", "a"), "0.50")

    def test_contestants_take_turns(self):
        order = []

        def turn(name: str, first: float) -> Callable[[], float]:
            figures = itertools.count(first)
            return lambda: order.append(name) or next(figures)

        figures = turns.take_turns({"a": turn("a", 1.0), "b": turn("b", 10.0)}, rounds=3)
        self.assertEqual("".join(order), "ababab")
        self.assertEqual(figures, {"a": [1, 2, 3], "b": [10, 11, 12]})

    def test_work_is_warmed_up_then_timed(self):
        """Once before the clock, once a turn; seconds of one input."""
        work = mock.Mock()
        turn = turns.timed(work, CPU, count=4)
        work.assert_called_once()
        with stopped_clock(2):
            self.assertEqual(turn(), 0.5)
        self.assertEqual(work.call_count, 2)

    def test_every_task_is_measured(self):
        self.assertEqual(list(cases.CASES), list(tasks.TASKS))
        self.assertEqual(list(inputs.INPUTS), list(tasks.TASKS))


class ReportTest(unittest.TestCase):
    """Made-up figures, and the lines they must give."""

    def lines(self, section, figures) -> list[str]:
        return section.report(figures).splitlines()

    def test_loop(self):
        """Rates, of which ratios are those of all rounds; nothing of who takes no part."""
        figures = {}
        for name, size in (("128", 128), ("32", 32)):
            for kind, rate in zip(cases.KINDS, (1000, 900, 800, 300), strict=True):
                rates = rate - size, 10 * (rate - size), 1
                figures[kind, name] = [1 / rate for rate in rates]
        figures |= {(BARE, "cnn3d"): [1 / 100, 1 / 200, 1 / 50]}
        figures |= {(OWN, "cnn3d"): [1 / 90, 1 / 190, 1 / 49]}
        self.assertEqual(
            self.lines(loop, figures),
            [
                "| training, inputs a second | (a) bare step | (b) train.py | (b) --augment "
                "| (c) plain loop | b/a | b augmented/a | b/c |",
                "| --- | --- | --- | --- | --- | --- | --- | --- |",
                "| 128 | 872 | 772 | 672 | 172 | 0.89 | 0.77 | 4.49 |",
                "| 32 | 968 | 868 | 768 | 268 | 0.90 | 0.79 | 3.24 |",
                "| cnn3d | 100 | 90.00 |  |  | 0.95 |  |  |",
            ],
        )

    def test_inputs(self):
        """Seconds; how much faster than a task's last one, and the share of its seconds."""
        figures = {
            ("classification", "test.py"): [1 / 40, 1 / 1300, 1 / 5000],
            ("classification", "batch_size=1"): [1 / 10, 1 / 100, 1 / 1000],
            ("detection", "tiny_ssd"): [0.1, 0.2, 0.4],
            ("detection", inputs.TORCHVISION): [0.2, 0.3, 0.4],
            ("segmentation", "res_unet"): [0.1, 0.2, 0.7],
            ("style", "network forward and backward"): [1, 2, 3],
            ("style", "and the products of the Gram matrices"): [2, 3, 5],
            ("style", "style.py"): [4, 4, 6],
        }
        rest = "| seconds | a second | times as fast | share of seconds |"
        line = "| --- | --- | --- | --- | --- |"
        self.assertEqual(
            self.lines(inputs, figures),
            [
                f"| a sign {rest}", line,
                "| test.py | 0.000769 | 1,300 | 5.00 | 0.20 |",
                "| batch_size=1 | 0.01 | 100 | 1.00 | 1.00 |", "",
                f"| a photograph of 1280x736 {rest}", line,
                "| tiny_ssd | 0.2 | 5.00 | 1.50 | 0.67 |",
                f"| {inputs.TORCHVISION} | 0.3 | 3.33 | 1.00 | 1.00 |", "",
                f"| a frame of 480x360 {rest}", line,
                "| res_unet | 0.2 | 5.00 | 1.00 | 1.00 |", "",
                f"| 100 steps of 256x256, SqueezeNet, fp32 {rest}", line,
                "| network forward and backward | 2 | 0.50 | 2.00 | 0.50 |",
                "| and the products of the Gram matrices | 3 | 0.33 | 1.33 | 0.75 |",
                "| style.py | 4 | 0.25 | 1.00 | 1.00 |",
            ],
        )  # fmt: skip

    def test_saliency(self):
        figures = {saliency.OWN: [1 / 40, 1 / 1300, 1 / 5000], saliency.PLAIN: [0.1, 0.01, 0.001]}
        _, _, own, plain = self.lines(saliency, figures)
        self.assertEqual(own, "| saliency_maps | 0.000769 | 1,300 | 5.00 | 0.20 |")
        self.assertEqual(plain, "| image by image | 0.01 | 100 | 1.00 | 1.00 |")

    def test_attention(self):
        """Of both shapes clips/s and memory, each in ratio to the naive form."""
        figures, (first, second) = {}, attention.SHAPES
        for shape, own in ((first, 2 * 2**20), (second, 3 * 2**20)):
            figures[attention.SECONDS, attention.OWN, shape] = [1 / 4, 1 / 8, 1 / 3]
            figures[attention.SECONDS, attention.NAIVE, shape] = [1, 1, 1]
            figures[attention.MEMORY, attention.OWN, shape] = [own] * 3
            figures[attention.MEMORY, attention.NAIVE, shape] = [36 * 2**20] * 3
        self.assertEqual(
            self.lines(attention, figures)[2:],
            [
                f"| NonLocalBlock, {first} | 4.00 | 4.00 | 2 | 1/18.00 |",
                f"| softmax(q k^T) v, {first} | 1.00 | 1.00 | 36 | 1/1.00 |",
                f"| NonLocalBlock, {second} | 4.00 | 4.00 | 3 | 1/12.00 |",
                f"| softmax(q k^T) v, {second} | 1.00 | 1.00 | 36 | 1/1.00 |",
            ],
        )

    def test_start(self):
        figures = {start.HELP: [0.1, 0.1, 1], start.STEP: [3, 5, 3], start.TORCH: [2, 2, 4]}
        self.assertEqual(
            self.lines(start, figures)[2:],
            [
                "| `train.py --help` | 0.1 | 10.00 | 20.00 | 0.05 |",
                "| `train.py --bn --stn`, one step | 3 | 0.33 | 0.67 | 1.50 |",
                "| `import torch` | 2 | 0.50 | 1.00 | 1.00 |",
            ],
        )


class LoopTest(FolderCase):
    """Three classes of squares, 30 images of each, in batches of 16."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        make_images(cls.root, {"train": 30, "val": 1, "test": 7})

    def case(self, runtime: Runtime = CPU, **settings: bool) -> Case:
        chosen = {"batch_size": 16, **settings}
        return cases.prepare("classification", self.root, runtime, chosen, bn=True, stn=True)

    def contestants(self, runtime: Runtime) -> dict[str, tuple[Learner, turns.Turn, list[int]]]:
        """Return each with what learns, and the batches of one turn."""
        case, augmented = self.case(runtime), self.case(runtime, augment=True)
        plain = cases.plain_signs(self.root, "train", 16)
        made = {}
        for kind, loader, batches in (
            (BARE, case.loaders[BARE], [16] * 6),
            (OWN, case.loaders[OWN], [16, 16, 16, 16, 16, 10]),
            (AUGMENTED, augmented.loaders[OWN], [16, 16, 16, 16, 16, 10]),
            (PLAIN, plain, [16, 16, 16, 16, 10]),  # one before the clock
        ):
            learner = case.learner(runtime)
            made[kind] = learner, loop.WAYS[kind](learner, loader), batches
        return made

    def test_every_image_is_counted_once(self):
        for kind, (_, turn, batches) in self.contestants(CPU).items():
            with self.subTest(kind), seen_images(trained=True) as images:
                self.assertAlmostEqual(counted(turn), sum(batches))
                self.assertEqual(images, batches)

    def test_gradients_are_those_of_the_batch(self):
        """What an earlier step has left is gone before the backward pass."""
        for kind, (learner, turn, batches) in self.contestants(CPU).items():
            weight, given, alone = learner.network.fc_net[4].weight, [], []
            weight.register_hook(given.append)
            weight.register_post_accumulate_grad_hook(
                lambda w, given=given, alone=alone: alone.append(torch.equal(w.grad, given[-1]))
            )
            turn()
            with self.subTest(kind):
                self.assertGreaterEqual(len(alone), len(batches))
                self.assertTrue(all(alone))

    def test_all_learn(self):
        """After five turns, the bare step knows its batch, the others every image."""

        def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
            with torch.inference_mode():
                return (network.eval()(images).argmax(1) == labels).float().mean().item()

        every, new = next(iter(get_data_loader(self.root, "train", 32, 90))), self.case()
        for kind, (learner, turn, _) in self.contestants(CPU).items():
            images, labels = every
            if kind == BARE:  # the first that the loader gave
                images, labels = next(iter(self.case().loaders[BARE]))
            with self.subTest(kind):
                self.assertLess(accuracy(new.learner(CPU).network, images, labels), 0.7)
                for _ in range(5):
                    turn()
                self.assertGreater(accuracy(learner.network, images, labels), 0.9)

    def test_all_train_the_same_network(self):
        """From the same weights, which stay; all parameters are learned, at train.py's rate."""
        case = self.case()
        first, second = case.learner(CPU), self.case().learner(CPU)
        first.step(*next(iter(case.loaders[OWN])))
        third, learned = case.learner(CPU).network.state_dict(), first.network.state_dict()
        for name, weight in second.network.state_dict().items():
            self.assertTrue(torch.equal(third[name], weight), name)
        self.assertFalse(torch.equal(learned["fc_net.4.weight"], third["fc_net.4.weight"]))
        (group,) = first.optimizer.param_groups
        self.assertEqual(group["lr"], 1e-3)
        for weight, own in zip(group["params"], first.network.parameters(), strict=True):
            self.assertIs(weight, own)

    def test_a_run_has_no_end(self):
        """Also at a schedule that counts its steps."""
        case = self.case(schedule="onecycle")
        learner, batch = case.learner(CPU), next(iter(case.loaders[OWN]))
        for _ in range(3):
            learner.step(*batch)
        self.assertEqual(learner.optimizer.param_groups[0]["lr"], 1e-3)

    def test_precision(self):
        """bf16 where train.py would take it; the plain loop is fp32 everywhere."""
        for kind, (learner, turn, _) in self.contestants(BF16).items():
            types = set()
            learner.network.conv_net[3].conv.register_forward_hook(
                lambda module, inputs, output, types=types: types.add(output.dtype)
            )
            turn()
            with self.subTest(kind):
                self.assertEqual(types, {torch.float32 if kind == PLAIN else torch.bfloat16})

    def test_the_plain_loop_has_no_layout_of_ours(self):
        for kind, (learner, _, _) in self.contestants(CPU).items():
            weight = learner.network.conv_net[3].conv.weight
            self.assertEqual(weight.is_contiguous(), kind == PLAIN)

    def test_loaders_give_the_same_pictures(self):
        own = next(iter(get_data_loader(self.root, "test", 32, 21)))
        plain = next(iter(cases.plain_signs(self.root, "test", 21)))
        assert_close(own[0].contiguous(), plain[0])
        self.assertTrue(torch.equal(own[1], plain[1]))

    def test_training_images_are_shuffled_and_tests_not(self):
        for mode, shuffled in (("train", True), ("test", False)):
            loader = cases.plain_signs(self.root, mode, 90)
            _, first = next(iter(loader))
            _, second = next(iter(loader))
            self.assertEqual(not torch.equal(first, second), shuffled)

    def test_who_gets_what(self):
        """Each name its loop, each loop its loader; what they are made of stands in for them."""
        assigned = {BARE: "bare", OWN: "own", AUGMENTED: "own", PLAIN: "plain"}
        self.assertEqual({kind: f"{way}_turns" for kind, way in assigned.items()},
                         {kind: way.__name__ for kind, way in loop.WAYS.items()})  # fmt: skip
        ways = {kind: lambda *given, kind=kind: given for kind in cases.KINDS}
        with (
            tempfile.TemporaryDirectory() as folder,
            mock.patch.object(cases, "BATCH_SIZES", (8, 4)),
            mock.patch.object(cases, "MNIST_IMAGES", {"train": 100, "t10k": 10}),
            mock.patch.object(loop, "WAYS", ways),
            small(signs=ONE_SIGN),
        ):
            made = loop.contestants(Path(folder), CPU, ["classification"])
            self.assertEqual(cases.draw("signs", Path(folder)), Path(folder) / "signs")  # once
            names = [(kind, f"signs, batch {size}") for size in (8, 4) for kind in cases.KINDS]
            digits = [(kind, "MNIST, batch 64") for kind in (BARE, OWN, PLAIN)]
            self.assertEqual(list(made), names + digits)
            for (kind, name), (learner, loader) in made.items():
                with self.subTest(kind=kind, name=name):
                    on_signs, size = name.startswith("signs"), int(name.split()[-1])
                    count = 1_001_440 if on_signs else None
                    self.assertIsInstance(learner.network, Classifier if on_signs else MnistCNN)
                    weights = sum(p.numel() for p in learner.network.parameters())
                    self.assertEqual(weights, count or weights)
                    self.assertIs(learner.runtime, CPU)
                    if on_signs:
                        self.assertEqual(len(loader.dataset), 26)
                    self.assertEqual(len(next(iter(loader))[1]), size)
                    self.assertEqual(loader.num_workers, 2 if kind == PLAIN else 0)
                    augmented = getattr(loader.dataset, "augment", None) is not None
                    self.assertEqual(augmented, kind == AUGMENTED)


class MnistTest(FolderCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.enterClassContext(mock.patch.object(cases, "MNIST_IMAGES", {"train": 1500, "t10k": 10}))
        cases.write_mnist(cls.root)
        cls.case = cases.prepare(
            "classification", cls.root, CPU, {"batch_size": 64}, dataset="mnist"
        )
        cls.plain = cases.plain_mnist(cls.root, 64, 2)

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
        own, plain = self.case.loaders[OWN], self.plain
        self.assertEqual((len(own.dataset), len(plain.dataset)), (1349, 1500))
        for loader in (own, plain):
            self.assertEqual(len(next(iter(loader))[1]), 64)
        plain_images = torch.stack([plain.dataset[index][0] for index in range(100)])
        own_images, _ = own.dataset.__getitems__(range(80))
        for image in own_images:
            self.assertLess((plain_images - image).abs().flatten(1).amax(1).min(), 1e-5)

    def test_every_image_is_counted_once(self):
        for kind, loader, total in (
            (OWN, self.case.loaders[OWN], 1349), (PLAIN, self.plain, 1500 - 64),
        ):  # fmt: skip
            turn = loop.WAYS[kind](self.case.learner(CPU), loader)
            with seen_images(trained=True) as images:
                self.assertAlmostEqual(counted(turn), total)
            self.assertEqual(sum(images), total)


class TaskLoopTest(FolderCase):
    """Of the tasks that train on something else than images with a label."""

    def made(self, task: str, kind: type) -> dict[object, tuple]:
        with seen_shapes(kind) as batches:
            return take_turns(loop.contestants(self.root, CPU, [task]), batches)

    def test_segmentation(self):
        """As many windows in both ways to train."""
        street = tasks.segmentation.data.SOURCES["street"]
        windows = replace(street.windows, size=(32, 64))
        with (
            mock.patch.dict(
                tasks.segmentation.data.SOURCES, street=replace(street, windows=windows)
            ),
            mock.patch.object(cases, "WINDOWS", 17),
            small(streets=SMALL_STREETS),
        ):
            made = self.made("segmentation", ResUNet)
        self.assertEqual(list(made), [(BARE, "res_unet"), (OWN, "res_unet")])
        batch = (32, 3, 32, 64)
        self.assertEqual(made[BARE, "res_unet"], (64, [(True, batch)] * 2))
        count, shapes = made[OWN, "res_unet"]
        self.assertEqual(count, 34)
        self.assertEqual(shapes[:2], [(True, batch), (True, (2, *batch[1:]))])

    def test_detection(self):
        """The 192 pixels a side of its own windows, varied as train.py does unasked."""
        with mock.patch.object(cases, "WINDOWS", 1), small(streets=SMALL_STREETS):
            made = self.made("detection", Detector)
            (case,) = cases.cases_of("detection", self.root, CPU).values()
        self.assertTrue(case.loaders[OWN].dataset.windows.vary)
        self.assertEqual(list(made), [(BARE, "center_net"), (OWN, "center_net")])
        for count, shapes in made.values():
            self.assertEqual((count, shapes[0]), (2, (True, (2, 3, 192, 192))))

    def test_video(self):
        """Clips of the shape that is said."""
        drawn = partial(clips.clips_of("motion"), splits=dict.fromkeys(
            ("train", "val", "test"), 4))  # fmt: skip
        with (
            mock.patch.object(cases, "CLIP_NETWORKS", ("early_fusion",)),
            small(clips__motion_16=drawn),
        ):
            made = self.made("video", EarlyFusion)
            with seen_shapes(EarlyFusion) as batches:
                tested = take_turns(inputs.contestants(self.root, CPU, ["video"]), batches)
        self.assertEqual(list(made), [(BARE, "early_fusion"), (OWN, "early_fusion")])
        for count, shapes in made.values():
            self.assertEqual((count, shapes[0]), (4, (True, (4, 3, 16, 32, 32))))
        self.assertEqual(
            tested,
            {("video", "early_fusion"): (inputs.LOOKS, [(False, (1, 3, 16, 32, 32))] * 8)},
        )

    def test_diffusion(self):
        """As many latents in both ways to train, and a picture by itself, with guidance."""
        designs = tasks.diffusion.networks.NETWORKS
        shape = {
            "channels": (16, 16), "heads": 2, "groups": 4, "text_width": 16, "text_heads": 2,
            "text_layers": 1,
        }  # fmt: skip
        latent = replace(designs["latent_diffusion"], fixed=shape)
        tiny = partial(AutoencoderConfig, channels=(8, 8, 8, 8), groups=4, latent_channels=4)
        drawn = partial(captions.draw_captions, splits={"train": 2, "val": 1, "test": 1})
        with (
            mock.patch.dict(designs, latent_diffusion=latent),
            mock.patch.object(cases, "AutoencoderConfig", tiny),
            small(captions=drawn),
        ):
            made = self.made("diffusion", UNet2DConditionModel)
            with seen_shapes(UNet2DConditionModel) as batches:
                painted = take_turns(inputs.contestants(self.root, CPU, ["diffusion"]), batches)
        batch = (32, 4, 8, 8)
        self.assertEqual(made[BARE, "UNet"], (64, [(False, batch)] * 2))  # trained as it is tested
        count, shapes = made[OWN, "UNet"]
        self.assertEqual(count, 52)
        self.assertEqual(shapes[:2], [(False, batch), (False, (20, 4, 8, 8))])
        shapes = [(False, (2, 4, 8, 8))] * 25
        self.assertEqual(painted, {("diffusion", "diffuse.py"): (1, shapes)})


class InputsTest(FolderCase):
    """As they are tested."""

    def test_every_sign_is_counted_once(self):
        """By one, no more than SINGLES of them; the network stays as it is."""
        networks = {}

        def note(network: nn.Module, inputs: tuple, output: torch.Tensor) -> tuple[bool, int]:
            networks.setdefault(network, copy.deepcopy(network.state_dict()))
            return network.training or output.requires_grad, len(inputs[0])

        with (
            mock.patch.object(cases, "MNIST_IMAGES", {"train": 100, "t10k": 10}),
            mock.patch.object(inputs, "SINGLES", 9),
            small(signs=ONE_SIGN),
            seen(Classifier, note) as batches,
        ):
            made = take_turns(inputs.contestants(self.root, CPU, ["classification"]), batches)
            self.assertEqual(
                made,
                {
                    ("classification", "test.py"): (26, [(False, 26)]),
                    ("classification", "batch_size=1"): (9, [(False, 1)] * 9),
                },
            )
            with mock.patch.object(inputs, "SINGLES", 260):
                turn = inputs.signs(self.root, CPU)["batch_size=1"]
                self.assertAlmostEqual(counted(turn), 26)  # no more than there are
        for network, before in networks.items():
            for key, value in network.state_dict().items():
                self.assertTrue(torch.equal(value, before[key]), key)

    def test_photograph(self):
        """Each searches one picture, whole, as often; a turn is the seconds of one search."""
        with (
            mock.patch.object(inputs, "PHOTOGRAPH", (64, 96)),
            mock.patch.object(inputs, "LOOKS", 3),
            small(streets=SMALL_STREETS),
            seen_shapes(Detector) as batches,
        ):
            made = take_turns(inputs.contestants(self.root, CPU, ["detection"]), batches)
        names = [name for _, name in made]
        self.assertEqual(names, ["tiny_ssd", "center_net", inputs.TORCHVISION])
        for key, result in made.items():
            self.assertEqual(result, (3, [(False, (1, 3, 64, 96))] * 3), key)

    def test_frame(self):
        """Frames one by one, filled up to what the network takes; the case's network stays."""
        with (
            mock.patch.object(inputs, "FRAME", (48, 60)),
            mock.patch.object(inputs, "LOOKS", 2),
            small(streets=SMALL_STREETS),
            seen_shapes(ResUNet) as batches,
        ):
            (case,) = cases.cases_of("segmentation", self.root, CPU).values()
            before = list(case.job.network.state_dict())
            made = take_turns(inputs.contestants(self.root, CPU, ["segmentation"]), batches)
        shapes = [(False, (1, 3, side, side)) for side in (64, 32)] * 2  # in two sizes
        self.assertEqual(made, {("segmentation", "res_unet"): (2, shapes)})
        self.assertEqual(list(case.job.network.state_dict()), before)

    def test_style(self):
        """STEPS passes through the network; the products of its four style layers where said."""
        backward = torch.autograd.backward
        with (
            mock.patch.object(inputs, "PAINTED", 48),
            mock.patch.object(inputs, "STEPS", 3),
            mock.patch.object(inputs, "gram_matrix", side_effect=inputs.gram_matrix) as products,
            mock.patch.object(torch.autograd, "backward", side_effect=backward) as backwards,
            small(streets=SMALL_STREETS),
            seen(nn.MaxPool2d, lambda *_: True) as pools,  # two on the way to these layers
        ):
            counts = {}
            for (_, name), turn in inputs.contestants(self.root, CPU, ["style"]).items():
                pools.clear()
                products.reset_mock()
                backwards.reset_mock()
                with stopped_clock(4):
                    self.assertEqual(turn() % 4, 0)
                counts[name] = len(pools) // 2, products.call_count, backwards.call_count
        network, both, whole = counts.values()
        self.assertEqual(network, (3, 0, 3))
        self.assertEqual(both, (3, 3 * 4, 3))
        passes, _, steps = whole
        self.assertEqual(steps, 3)
        self.assertIn(passes, (4, 5))  # the content picture's own, and the losses at the end

    def test_style_trains(self):
        """Photographs, by losses of a style, in batches of train.py's."""
        with small(streets=SMALL_STREETS):
            (case,) = cases.cases_of("style", self.root, CPU).values()
        images, targets = next(iter(case.loaders[OWN]))
        self.assertEqual((tuple(images.shape), targets), ((2, 3, 192, 192), None))
        loss, figures = case.learner(CPU).step(images, targets)
        self.assertTrue(loss.isfinite())
        self.assertEqual(list(figures), ["content", "style", "tv"])


class AttentionTest(unittest.TestCase):
    def test_both_compute_the_same(self):
        x = torch.randn(2, 64, 2, 4, 4)
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
        with (
            mock.patch.object(attention, "SHAPES", ((3, 8, 2, 4, 4), (5, 8, 2, 4, 4))),
            mock.patch.object(attention, "extra_memory", return_value=7.0) as memory,
        ):
            made = attention.contestants(Path(), CPU, [])
            for (kind, _, shape), turn in made.items():
                if kind == attention.MEMORY:
                    self.assertEqual((turn(), turn()), (7, 7))
                    continue
                backward = torch.Tensor.backward
                with mock.patch.object(
                    torch.Tensor, "backward", autospec=True, side_effect=backward
                ) as backwards:
                    self.assertAlmostEqual(counted(turn), shape[0])
                backwards.assert_called_once()
        self.assertEqual(len(made), 8)
        self.assertEqual(memory.call_count, 4)  # once each, however many rounds

    @unittest.skipUnless(Path("/proc/self/status").exists(), "reads the peak from Linux's /proc")
    def test_memory(self):
        """At 4,096 positions, the naive form holds two matrices of 64 MiB, the block none."""
        shape = (1, 64, 4, 32, 32)
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
        model = Classifier(3, 26, use_batch_norm=True, use_stn=True).eval()
        images, labels = torch.randn(3, 3, 32, 32), torch.tensor([0, 5, 25])
        own = saliency_maps(model, images, labels)
        assert_close(saliency.one_by_one(model, images, labels), own, rtol=1e-3, atol=1e-5)

    def test_images_are_counted(self):
        """Each gets the same: a network in evaluation mode, and as many images as are counted."""
        given = {"own": [], "plain": []}

        def note(name: str, network: nn.Module, *rest: torch.Tensor) -> None:
            given[name].append((network.training, *map(len, rest)))

        with (
            mock.patch.object(saliency, "IMAGES", 5),
            mock.patch.object(saliency, "saliency_maps", partial(note, "own")),
            mock.patch.object(saliency, "one_by_one", partial(note, "plain")),
        ):
            made = saliency.contestants(Path(), CPU, [])
            for name, turn in zip(given, made.values(), strict=True):
                given[name].clear()
                self.assertAlmostEqual(counted(turn), 5)
                self.assertEqual(given[name], [(False, 5, 5)])
        self.assertEqual(list(made), [saliency.OWN, saliency.PLAIN])


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
        unused = {"torch._dynamo", "torchvision", "matplotlib", "sklearn", "scipy"}
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
            for turn in start.contestants(self.root, CPU, []).values():
                turn()
        draw.assert_called_once_with(self.root / "built_in")
        warm_up, show_help, step, import_torch = commands
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


class ScriptTest(ScriptCase):
    def run_here(self, *arguments: str) -> tuple[list, subprocess.CompletedProcess]:
        """Run the script with sections that stand in for its own; return what they were given."""
        made = []
        with contextlib.ExitStack() as stack:
            for name in speed.SECTIONS:
                section = import_module(f"speed.{name}")

                def contestants(folder, runtime, tasks, name=name):
                    made.append((name, list(tasks)))
                    return {name: lambda: 7.0}

                def report(figures, name=name):
                    return f"{name} {figures[name]}"

                for function in (contestants, report):
                    patch = mock.patch.object(section, function.__name__, function)
                    stack.enter_context(patch)
            return made, script_here("benchmark.py", *arguments)

    def test_every_section(self):
        """They are modules with contestants and a report; the script runs those asked for."""
        made, every = self.run_here("--rounds", "2", "--device", "cpu")
        self.assertEqual(every.returncode, 0, every.stderr)
        self.assertEqual(made, [(name, list(tasks.TASKS)) for name in speed.SECTIONS])
        head, *rest = every.stdout.splitlines()
        self.assertRegex(head, r"^torch \S+, cpu, \d+ threads, (bf16|fp32), 2 rounds$")
        self.assertEqual(
            rest, [line for name in speed.SECTIONS for line in ("", f"{name} [7.0, 7.0]")]
        )

    def test_one_section(self):
        made, one = self.run_here("--rounds", "3", "--only", "saliency")
        self.assertEqual([name for name, _ in made], ["saliency"])
        self.assertIn("saliency [7.0, 7.0, 7.0]", one.stdout)
        self.assertNotIn("loop", one.stdout)

    def test_some_tasks(self):
        """In the sections that are of tasks, unless one of them is asked for."""
        chosen = ["video", "style"]
        made, _ = self.run_here("--rounds", "1", "--task", *chosen)
        self.assertEqual(made, [("loop", chosen), ("inputs", chosen)])
        made, _ = self.run_here("--rounds", "1", "--task", *chosen, "--only", "inputs")
        self.assertEqual(made, [("inputs", chosen)])

    def test_refused(self):
        """A section or a task that there is not, and tasks of a section without."""
        for flags, words in (
            (["--only", "nothing"], ["nothing"]),
            (["--task", "nothing"], ["nothing"]),
            (["--only", "start", "--task", "video"], ["start", "--task"]),
        ):
            self.assert_refused(script_here("benchmark.py", *flags), 2, *words)


if __name__ == "__main__":
    unittest.main()
