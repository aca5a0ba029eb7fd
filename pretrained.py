"""Torchvision's networks with their ImageNet weights, from its own download or from a file.

    network = load("squeezenet1_1")
    network = load("vgg19", weights_file=Path("vgg19-dcbb9e9d.pth"))

Torchvision's weights say how their network wants its pictures and what its classes are called;
both come with the network.
"""

import re
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
        state = checkpoint.load_weights_file(weights_file)
    else:
        state = _download(name, weights)
    # As torchvision's own builders: DenseNet's files say norm.1 for norm1, and two networks that
    # come from TensorFlow turn the preset's normalisation into theirs.
    state = {
        re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", key): value for key, value in state.items()
    }
    load_weights(model, state)
    if hasattr(model, "transform_input"):
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


def _download(name: str, weights: models.WeightsEnum) -> dict[str, torch.Tensor]:
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise LabError(
            f"could not download the weights of {name} from {weights.url} ({error}); fetch that "
            "file elsewhere and name it with --weights FILE, or look into a network of your own "
            "with --ckpt_path checkpoints/default"
        ) from error
