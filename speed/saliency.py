"""Saliency maps: one backward pass for a batch of images, against one for each; images a second."""

import time
from collections.abc import Callable, Hashable
from pathlib import Path

import torch
from torch import Tensor, nn

from lab.runtime import Runtime
from looking.insight import saliency_maps
from speed import Figures, Turn, pair_table
from speed.training import DEFAULTS, classifier, prepare

IMAGES = 32
OWN, PLAIN = "saliency_maps", "image by image"


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the two, with images of noise."""
    return {OWN: turns(saliency_maps, runtime), PLAIN: turns(one_by_one, runtime)}


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of images/s, and the ratio."""
    return pair_table(f"saliency of {IMAGES} images", figures, OWN, PLAIN)


def one_by_one(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The assignment's: a backward pass for each image; (N, C, H, W) to (N, H, W)."""
    maps = []
    for image, label in zip(images, labels, strict=True):
        image = image[None].clone().requires_grad_()
        model.requires_grad_()(image)[0, label].backward()
        maps.append(image.grad.abs().amax(1))
    return torch.cat(maps)


def turns(maps: Callable[[nn.Module, Tensor, Tensor], Tensor], runtime: Runtime) -> Turn:
    """Saliency maps of IMAGES images: images/s."""
    model, _ = prepare(classifier(), DEFAULTS, runtime)
    model.eval().requires_grad_(False)
    images = torch.randn(IMAGES, 3, 32, 32, device=runtime.device)
    images = images.contiguous(memory_format=torch.channels_last)  # as they come from a loader
    labels = torch.arange(IMAGES, device=runtime.device) % 26

    def turn() -> float:
        began = time.perf_counter()
        maps(model, images, labels)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return IMAGES / (time.perf_counter() - began)

    for _ in range(3):  # warm up
        turn()
    return turn
