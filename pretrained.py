"""Torchvision's networks with their ImageNet weights, from its own download or from a file.

    network = load("squeezenet1_1")
    network = load("vgg19", weights_file=Path("vgg19-dcbb9e9d.pth"))

Torchvision's weights say how their network wants its pictures and what its classes are called;
both come with the network.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchvision import models
from torchvision.transforms import InterpolationMode

import checkpoint
from console import LabError
from images import Preprocess
from networks import build_network, load_weights


@dataclass(frozen=True)
class Pretrained:
    """A trained network with what belongs to it.

    Attributes:
        model: in evaluation mode, on the CPU.
        preprocess: from a picture to its input and back.
        classes: their names, in the order of the logits.
    """

    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]


def load(name: str, weights_file: Path | None = None) -> Pretrained:
    """Return one of torchvision's classifiers with ImageNet weights.

    Args:
        name: in torchvision's registry.
        weights_file: a state dict on disk; None has torchvision download its own, once.

    Raises:
        LabError: no such network, no connection, or a file that does not fit; says what to do.
    """
    model = build_network(name, {})
    weights = models.get_model_weights(name).DEFAULT
    if weights_file is not None:
        state = checkpoint.load_any(weights_file)["model_state"]
    else:
        state = download_weights(
            name, "look into a network of your own with --ckpt_path checkpoints/default"
        )
    load_weights(model, state)
    if hasattr(model, "transform_input"):  # two that come from TensorFlow, with its normalisation
        model.transform_input = True
    return Pretrained(model.eval(), preprocess_of(name), tuple(weights.meta["categories"]))


def preprocess_of(name: str) -> Preprocess:
    """Return the preprocessing that a network's ImageNet weights were trained with."""
    preset = models.get_model_weights(name).DEFAULT.transforms()
    return Preprocess(
        size=(preset.crop_size[0],) * 2,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        resize=preset.resize_size[0],
        bicubic=preset.interpolation == InterpolationMode.BICUBIC,
    )


def download_weights(name: str, instead: str) -> dict[str, torch.Tensor]:
    """Have torchvision download a network's ImageNet weights, once.

    Args:
        instead: what to do without a connection.

    Raises:
        LabError: no connection; says where to put the file, and what else to do.
    """
    weights = models.get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise LabError(
            f"could not download the weights of {name} from {weights.url} ({error}); fetch that "
            f"file elsewhere and name it with --weights FILE, or {instead}"
        ) from error
