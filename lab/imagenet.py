"""torchvision's classifiers, with what it knows of their ImageNet weights."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import Tensor, nn

from lab import checkpoint
from lab.console import LabError
from lab.folders import PRETRAINED, near
from lab.images import Preprocess
from lab.registry import Design, build
from lab.weights import load_weights, replace_output_layer

NUM_CLASSES = 1000


def models() -> ModuleType:
    """Import torchvision's networks: as long a wait as for half of torch, for who needs them."""
    return import_module("torchvision.models")


@dataclass(frozen=True)
class PublishedConfig:
    """All that is needed to build one of torchvision's classifiers."""

    name: str
    num_classes: int = NUM_CLASSES


def build_published(config: PublishedConfig) -> nn.Module:
    """Build one of torchvision's classifiers, untrained."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of a change in how two of them start
        network = models().get_model(config.name, weights=None)
    if config.num_classes != NUM_CLASSES:
        replace_output_layer(network, config.num_classes)
    return network


@cache
def designs() -> dict[str, Design]:
    """Return how each of torchvision's classifiers is built, by name."""
    names = models().list_models(module=models())
    return {name: Design(PublishedConfig, build_published, {"name": name}) for name in names}


class Published(Mapping[str, Design]):
    """The same, asked for when one of them is."""

    def __getitem__(self, name: str) -> Design:
        return designs()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(designs())

    def __len__(self) -> int:
        return len(designs())


PUBLISHED = Published()


def preprocess_of(name: str) -> Preprocess:
    """Return the preprocessing that a network's ImageNet weights were trained with."""
    preset = models().get_model_weights(name).DEFAULT.transforms()
    return Preprocess(
        size=(preset.crop_size[0],) * 2,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        resize=preset.resize_size[0],
        bicubic=preset.interpolation.value == "bicubic",
    )


def download_weights(name: str, instead: str) -> dict[str, Tensor]:
    """Have torchvision download a network's weights, once.

    Raises:
        LabError: no connection; says where to put the file, and what to do `instead`.
    """
    weights = models().get_model_weights(name).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise LabError(
            f"could not download the weights of {name} from {weights.url} ({error}); fetch that "
            f"file elsewhere and name it with --weights FILE, or {instead}"
        ) from error


@dataclass(frozen=True)
class Pretrained:
    """A trained network of torchvision's with what belongs to it."""

    network: nn.Module  # in evaluation mode, on the CPU
    preprocess: Preprocess  # from a picture to its input and back
    classes: tuple[str, ...]  # their names, in the order of the logits


def load_pretrained(name: str, weights_file: Path | None = None) -> Pretrained:
    """Return one of torchvision's classifiers with the weights of a file, or its own of ImageNet.

    Raises:
        LabError: no such network, no connection, or a file that does not fit; says what to do.
    """
    network = build(PUBLISHED, name, {})
    if weights_file is not None:
        weights = checkpoint.load_any(weights_file)["model_state"]
    else:
        instead = f"take a network of ours: --ckpt_path {near(PRETRAINED / 'signs')}"
        weights = download_weights(name, instead)
    load_weights(network, weights)
    if hasattr(network, "transform_input"):  # two that come from TensorFlow, and its normalisation
        network.transform_input = True
    classes = tuple(models().get_model_weights(name).DEFAULT.meta["categories"])
    return Pretrained(network.eval(), preprocess_of(name), classes)
