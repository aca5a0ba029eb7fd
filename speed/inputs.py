"""Seconds an input, as every task's network is tested: on one of them at a time but for signs."""

import copy
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import nn

from lab import engine
from lab.images import as_input
from lab.runtime import Runtime, place, to_device
from speed.cases import cases_of, draw, plain_signs, prepare
from speed.turns import Figures, Turn, compared, timed
from tasks import Job, detection
from tasks.blocks import fold
from tasks.detection.networks import folded
from tasks.diffusion.networks import make_pipeline
from tasks.diffusion.painting import paint, prepared
from tasks.diffusion.words import restore_tokenizer
from tasks.style.losses import gram_matrix
from tasks.style.picture import transfer
from world.street import draw_street

SINGLES, LOOKS = 260, 8  # signs that are tested one by one; others' inputs, a turn
TORCHVISION = "fasterrcnn_mobilenet_v3_large_320_fpn"
PHOTOGRAPH, FRAME = (736, 1280), (360, 480)  # height, width; the first is GTSDB's
PAINTED, STEPS = 256, 100  # pixels a side, by style.py
PROMPT = "a roundabout sign at night"


def contestants(folder: Path, runtime: Runtime, tasks: Iterable[str]) -> dict[Hashable, Turn]:
    """Return those of each task."""
    return {
        (task, name): turn
        for task in tasks
        for name, turn in INPUTS[task][1](folder, runtime).items()
    }


def report(figures: Figures) -> str:
    """Return a table a task."""
    tasks = dict.fromkeys(task for task, _ in figures)
    of_tasks = {own: {n: f for (task, n), f in figures.items() if task == own} for own in tasks}
    return "\n\n".join(compared(INPUTS[task][0], own) for task, own in of_tasks.items())


def tested(job: Job, runtime: Runtime) -> nn.Module:
    """Return a copy of a network, on the device, in evaluation mode."""
    return place(copy.deepcopy(job.network).eval(), runtime)


# ---------------------------------------------------------------- what is looked at


def signs(folder: Path, runtime: Runtime) -> dict[str, Turn]:
    """The test of the main job: in batches, as test.py does it, and as the assignment has it."""
    job = cases_of("classification", folder, runtime)["signs, batch 32"].job
    network, batches = tested(job, runtime), job.loaders["test"]
    singles = plain_signs(draw("signs", folder), "test", batch_size=1)

    @torch.no_grad()
    def test_singly() -> None:
        network.eval()
        correct = 0
        for images, labels in islice(singles, SINGLES):  # each image is read when its turn comes
            correct += int(network(images.to(runtime.device)).argmax(-1).cpu() == labels)

    def test() -> None:
        engine.evaluate(network, job.objective.meter(), batches, runtime)

    return {
        "test.py": timed(test, runtime, len(batches.dataset)),
        "batch_size=1": timed(test_singly, runtime, min(SINGLES, len(singles))),
    }


def one_by_one(look: Callable[[], object], runtime: Runtime) -> Turn:
    """A look at an input of another task, over and over."""

    @torch.inference_mode()
    def work() -> None:
        for _ in range(LOOKS):
            with runtime.autocast():
                look()

    return timed(work, runtime, LOOKS)


def photograph(folder: Path, runtime: Runtime) -> dict[str, Turn]:
    """The search of one drawn street, by our detectors and one of torchvision's."""
    picture = draw_street(np.random.default_rng(0), PHOTOGRAPH).picture.copy()  # writable
    image, turns = to_device(as_input(picture), runtime), {}
    for name in (*detection.OWN, TORCHVISION):
        case = prepare("detection", draw("streets", folder), runtime, network=name)
        network = folded(tested(case.job, runtime))
        turns[name] = one_by_one(partial(network.detect, image), runtime)
    return turns


def frame(folder: Path, runtime: Runtime) -> dict[str, Turn]:
    """A frame, labelled."""
    ((name, case),) = cases_of("segmentation", folder, runtime).items()
    network = fold(tested(case.job, runtime))
    picture = np.random.default_rng(0).integers(0, 256, (*FRAME, 3), np.uint8)
    image = to_device(as_input(picture), runtime)
    return {name: one_by_one(partial(network.segment, image), runtime)}


def clip(folder: Path, runtime: Runtime) -> dict[str, Turn]:
    """A clip, by each network."""
    turns = {}
    for name, case in cases_of("video", folder, runtime).items():
        inputs, _ = next(iter(case.job.loaders["test"]))
        look = partial(tested(case.job, runtime), to_device(inputs[:1], runtime))
        turns[name] = one_by_one(look, runtime)
    return turns


# ---------------------------------------------------------------- what is painted


def words(folder: Path, runtime: Runtime) -> dict[str, Turn]:
    """A picture, with guidance, as diffuse.py paints it."""
    job = cases_of("diffusion", folder, runtime)["UNet"].job
    tokenizer = restore_tokenizer(job.identity["tokenizer"])
    pipeline = prepared(make_pipeline(tested(job, runtime), tokenizer))
    return {"diffuse.py": timed(partial(paint, pipeline, [PROMPT], [0], runtime), runtime)}


def painting(folder: Path, runtime: Runtime) -> dict[str, Turn]:
    """Steps of style.py, and what the network and the Gram matrices' products take of them."""
    objective = cases_of("style", folder, runtime)["TransformNet"].job.objective
    losses, recipe = objective.losses, objective.losses.recipe
    content = torch.rand(1, 3, PAINTED, PAINTED, device=runtime.device)
    gradients = losses.features(content)  # any of their shapes

    def go_through(products: bool) -> None:
        for _ in range(STEPS):
            features = losses.features(content.clone().requires_grad_())
            outputs = {layer: (features[layer], gradients[layer]) for layer in features}
            if products:
                for layer, target in zip(recipe.style_layers, losses.style_targets, strict=True):
                    outputs[layer] = gram_matrix(features[layer]), target
            torch.autograd.backward(*zip(*outputs.values(), strict=True))

    works = {
        "network forward and backward": partial(go_through, False),
        "and the products of the Gram matrices": partial(go_through, True),
        "style.py": partial(transfer, losses, content, content, objective.bounds, STEPS),
    }
    return {name: timed(work, runtime) for name, work in works.items()}


INPUTS: dict[str, tuple[str, Callable[[Path, Runtime], dict[str, Turn]]]] = {
    "classification": ("a sign", signs),
    "detection": ("a photograph of {1}x{0}".format(*PHOTOGRAPH), photograph),
    "segmentation": ("a frame of {1}x{0}".format(*FRAME), frame),
    "video": ("a clip of 16 frames", clip),
    "diffusion": ("a picture of 64x64 from words, 25 steps", words),
    "style": (f"{STEPS} steps of {PAINTED}x{PAINTED}, SqueezeNet, fp32", painting),
}
