"""The classifiers by name: the assignments' own, and torchvision's."""

from collections import ChainMap

import torch
from torch import Tensor, nn

from lab.console import LabError
from lab.imagenet import PUBLISHED
from lab.registry import build
from networks import NETWORKS as OWN

NETWORKS = ChainMap({}, OWN, PUBLISHED)  # torchvision is asked for what is not our own


def check_network(name: str, config: object, size: tuple[int, int]) -> bool:
    """Find out, computing nothing but shapes, whether a network can be trained on images of a size.

    Args:
        config: of the network.
        size: (H, W) of the images in pixels.

    Returns:
        True if it normalises batches, so that it cannot train on one image.

    Raises:
        LabError: images too small for it, or several logits an image in training.
    """
    network = build(NETWORKS, name, vars(config))
    if name not in OWN:
        try:
            logits = network.to("meta").train()(torch.empty(2, 3, *size, device="meta"))
        except (RuntimeError, AssertionError, ValueError) as error:
            height, width = size
            raise LabError(
                f"{name} takes no images of {height}x{width} pixels; try another --image_size"
            ) from error
        if not isinstance(logits, Tensor):
            raise LabError(
                f"{name} puts out several logits an image in training, which is not supported; "
                "try another network, resnet18 or mobilenet_v3_small"
            )
    return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in network.modules())
