"""What torchvision knows of its networks' ImageNet weights: the file, the pictures, the classes.

`networks.load_pretrained` builds a network with them.
"""

import torch
from torchvision import models
from torchvision.transforms import InterpolationMode

from lab.console import LabError
from lab.images import Preprocess


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


def classes_of(name: str) -> tuple[str, ...]:
    """Return ImageNet's class names, in the order of a network's logits."""
    return tuple(models.get_model_weights(name).DEFAULT.meta["categories"])


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
