"""Saliency maps: one backward pass for a batch of images, against one for each."""

from collections.abc import Hashable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lab.runtime import Runtime, place, to_device
from looking.insight import saliency_maps
from networks import Classifier
from speed.turns import Figures, Turn, compared, timed

IMAGES = 32
OWN, PLAIN = "saliency_maps", "image by image"


def contestants(folder: Path, runtime: Runtime, tasks: Iterable[str]) -> dict[Hashable, Turn]:
    """Return the two, with images of noise."""
    network = place(Classifier(3, 26, use_batch_norm=True, use_stn=True), runtime)
    network.eval().requires_grad_(False)
    images = to_device(torch.randn(IMAGES, 3, 32, 32), runtime)
    labels = torch.arange(IMAGES, device=runtime.device) % 26
    return {
        name: timed(partial(maps, network, images, labels), runtime, IMAGES)
        for name, maps in ((OWN, saliency_maps), (PLAIN, one_by_one))
    }


def report(figures: Figures) -> str:
    """Return what an image takes."""
    return compared(f"saliency of {IMAGES} images, each", figures)


def one_by_one(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The assignment's: a backward pass for each image; (N, C, H, W) to (N, H, W)."""
    maps = []
    for image, label in zip(images, labels, strict=True):
        image = image[None].clone().requires_grad_()
        network.requires_grad_()(image)[0, label].backward()
        maps.append(image.grad.abs().amax(1))
    network.requires_grad_(False)  # as the other contestant takes it over
    return torch.cat(maps)
