"""Weights: into a network, from another one to start from, and to an optimizer in groups.

    load_weights(network, state["model_state"])                     # all of them, or an error
    new = load_body(network, weights, outputs=("fc",))              # those that fit, to fine-tune
    groups = parameter_groups(network, ("fc",), new)

Fine-tuning keeps a trained body and gives it new output layers where classes are others.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lab.console import LabError

NEW_LAYER_RATE = 10.0  # of new output layers, over the body's: they have further to go
# The files that torchvision publishes for DenseNet say norm.1 for norm1.
DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")


def load_weights(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Load a state dict into a network; a LabError names the first mismatch if it does not fit.

    The network stays of float32, whatever the weights are kept in.
    """
    named = OrderedDict((DENSENET.sub(r"\1\2", name), value) for name, value in weights.items())
    # MNASNet takes no weights that do not say their layout's version; plain dictionaries do not.
    own = {"": {"version": network._version}}
    named._metadata = getattr(weights, "_metadata", own)
    try:
        network.load_state_dict(named)
    except (RuntimeError, TypeError, AttributeError, ValueError) as error:
        lines = str(error).strip().splitlines()
        first = lines[min(1, len(lines) - 1)].strip()
        raise LabError(f"the weights do not fit the network: {first[:200]}") from error


def load_body(
    network: nn.Module, weights: dict[str, Tensor], outputs: Sequence[str], keep: bool = True
) -> tuple[str, ...]:
    """Load a state dict to start from; output layers that do not fit are left as they are.

    Args:
        outputs: names of the layers, of the network or of the weights, that tell classes apart.
        keep: these where they fit; else, of other classes, none of them.

    Returns:
        The names of the layers that are new, i.e. untrained; errors as of `load_weights`.
    """
    prefixes = tuple(f"{name}." for name in outputs)
    own = network.state_dict()
    new = {
        name.rpartition(".")[0]: None
        for name, value in own.items()
        if name.startswith(prefixes)
        and not (keep and name in weights and weights[name].shape == value.shape)
    }
    of_new = tuple(f"{layer}." for layer in new)
    kept = {
        name: value
        for name, value in weights.items()
        if not name.startswith(of_new) and (name in own or not name.startswith(prefixes))
    }
    load_weights(network, kept | {k: v for k, v in own.items() if k.startswith(of_new)})
    return tuple(new)


def parameter_groups(
    network: nn.Module,
    outputs: Sequence[str] = (),
    new: Sequence[str] = (),
    freeze: bool = False,
) -> list[dict[str, Any]]:
    """Return what an optimizer is to train; what it is not is frozen.

    Args:
        outputs: names of the output layers.
        new: names of layers put onto a trained body.
        freeze: train the output layers alone.

    Returns:
        Groups as torch.optim takes them; `lr_scale` is what a schedule multiplies the rate by.
    """
    if freeze:
        network.requires_grad_(False)
        layers = [network.get_submodule(name).requires_grad_() for name in outputs]
        return [{"params": [weight for layer in layers for weight in layer.parameters()]}]
    # Of some networks, parts are never trained.
    learned = [weight for weight in network.parameters() if weight.requires_grad]
    if not new:
        return [{"params": learned}]
    head = [weight for name in new for weight in network.get_submodule(name).parameters()]
    body = [weight for weight in learned if all(weight is not own for own in head)]
    return [{"params": body}, {"params": head, "lr_scale": NEW_LAYER_RATE}]


def output_layer(network: nn.Module) -> tuple[str, nn.Module]:
    """Return the layer that makes the logits, with its name: the last linear or 1x1 convolution."""
    layers = [named for named in network.named_modules() if not named[0].startswith("aux")]
    return [named for named in layers if isinstance(named[1], nn.Linear | nn.Conv2d)][-1]


def replace_output_layer(network: nn.Module, num_classes: int) -> None:
    """Give a network a new, untrained output layer for `num_classes` classes."""
    name, old = output_layer(network)
    if isinstance(old, nn.Conv2d):  # SqueezeNet
        new = nn.Conv2d(old.in_channels, num_classes, old.kernel_size)
    else:
        new = nn.Linear(old.in_features, num_classes)
    network.set_submodule(name, new)
