"""How a network starts: from nothing, from a run that goes on, or from other weights.

Of other weights, whatever fits is kept, and output layers that tell other classes apart are new:
these learn at a rate of their own, or alone with `--freeze`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from lab.console import UsageError, say
from lab.folders import stored
from lab.imagenet import download_weights
from lab.objective import Objective
from lab.registry import Designs, build, check_same
from lab.weights import load_body, load_weights, output_layer, parameter_groups
from tasks import Job, State, TrainFlags


@dataclass(frozen=True)
class Start:
    """A network that is ready to be trained.

    Attributes:
        parameters: groups of what is to be trained.
        identity: what checkpoints hold of the network.
    """

    network: nn.Module
    parameters: list[dict[str, Any]]
    identity: dict[str, Any]

    def job(
        self, objective: Objective, loaders: Mapping[str, DataLoader], subject: str, dataset: str,
        root: Path | None, **more: Any,
    ) -> Job:  # fmt: skip
        """Return the job of training it on a data set with classes; its checkpoints know `more`."""
        data = {
            "dataset": dataset,
            "class_names": list(loaders["train"].dataset.classes),
            "data_root": root and stored(root),
        }
        identity = self.identity | data | more
        return Job(objective, self.network, loaders, identity, self.parameters, subject)


def check_start(
    name: str,
    flags: TrainFlags,
    resumed: State | None,
    published: bool = False,
    which: str = "torchvision's networks",
) -> None:
    """Raise a UsageError where flags start a network in a way that it, or a run, cannot start.

    Args:
        name: of the network.
        published: torchvision has weights for it.
        which: have such weights, as a user is told.
    """
    own, pretrained = flags.own, getattr(flags.own, "pretrained", False)
    if resumed is not None and (pretrained or own.weights):
        raise UsageError("--resume has its own weights: leave out --pretrained and --weights")
    if pretrained and not published:
        raise UsageError(
            f"--pretrained is for {which}; give {name} a checkpoint with --weights PATH"
        )
    if resumed is None:
        if own.freeze and not (pretrained or own.weights):
            raise UsageError(
                "--freeze leaves a trained body as it is: add --pretrained or --weights"
            )
        return
    frozen = (resumed.get("settings", {}) | resumed.get("flags", {})).get("freeze", False)
    if own.freeze != frozen:
        with_it, other = ("with", "without") if frozen else ("without", "with")
        raise UsageError(
            f"{flags.resume} was trained {with_it} --freeze, so it does not go on {other}"
        )


def start_network(
    designs: Designs,
    name: str,
    config: Any,
    flags: TrainFlags,
    resumed: State | None,
    weights: State | None = None,
    published: tuple[str, str] = ("", ""),
    classes: Sequence[str] | None = None,
) -> Start:
    """Build a network, and load the weights that flags ask to start from, if any.

    Args:
        designs, name, config: of the network. Its `outputs`, or else its last layer, tell classes
            apart; its `load_published`, if it has one, takes torchvision's weights and returns the
            names of the layers that are new.
        resumed: the checkpoint of a run that goes on.
        weights: a checkpoint or a bare state dict to start from; torchvision's own is bare.
        published: the network that torchvision has weights for, and what they were trained on.
        classes: names of those to be told apart; the output layers of a checkpoint that knows other
            ones, be they as many, are not kept.

    Raises:
        LabError: the run has another network; weights do not fit, or cannot be downloaded.
    """
    if resumed is not None:
        check_same(designs, name, config, resumed, flags.resume)
    torch.manual_seed(flags.settings.seed)
    network = build(designs, name, asdict(config))
    freeze, pretrained = (getattr(flags.own, name, False) for name in ("freeze", "pretrained"))
    of_others = pretrained or weights is not None or freeze
    outputs, new = outputs_of(network) if of_others else (), ()
    known = (weights or {}).get("class_names")
    same = None in (known, classes) or list(known) == list(classes)
    load_own = partial(load_body, network, outputs=outputs, keep=same)
    load_published = getattr(network, "load_published", load_own)
    if resumed is not None:
        load_weights(network, resumed["model_state"])
        earlier = resumed.get("new_layer")  # runs of earlier versions had one at the most
        new = resumed.get("new_layers", [earlier] if earlier else [])
    elif pretrained:
        hint = "train it from scratch, without --pretrained"
        new = load_published(download_weights(published[0], hint))
        say_start(published[1], network, outputs, new, freeze)
    elif weights is not None:
        load = load_own if "configs" in weights else load_published
        new = load(weights["model_state"])
        whence = str(flags.own.weights) + ", of other classes" * (not same)
        say_start(whence, network, outputs, new, freeze)
    identity = {"network": name, "configs": asdict(config), "new_layers": list(new)}
    return Start(network, parameter_groups(network, outputs, new, freeze), identity)


def outputs_of(network: nn.Module) -> Sequence[str]:
    """Return the names of the layers that tell classes apart."""
    own = getattr(network, "outputs", None)
    return (output_layer(network)[0],) if own is None else own


def say_start(
    whence: str, network: nn.Module, outputs: Sequence[str], new: Sequence[str], freeze: bool
) -> None:
    """Say what is kept of other weights, and what is new."""
    rest = "frozen" if freeze else "trained as well"
    layers = ", ".join(new or outputs)
    if len(new or outputs) == 1:
        layers += f" ({network.get_submodule(layers)})"
    word = "layers" if len(new or outputs) > 1 else "layer"
    kind = f"new output {word}" if new else f"its output {word}"
    if new and word == "layer":
        kind = f"a {kind}"
    say(f"Starting from {whence}: the body, {rest}, with {kind}, {layers}")
