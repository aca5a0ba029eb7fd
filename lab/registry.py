"""Networks by name, each built from one frozen config.

    NETWORKS = {
        "res_unet": Design(ResUNetConfig, ResUNet),
        "fcn_8s": Design(FCNConfig, FCN, {"finest": 8}),
    }
    config = new_config(NETWORKS, "fcn_8s", num_classes=11)
    network = build(NETWORKS, "fcn_8s", asdict(config))

A config is a dataclass of all that a network is built from. A checkpoint holds it as `configs`, a
dict, beside the name: the network is rebuilt with no other knowledge. A new network is a class, its
config, and a line in the `NETWORKS` of its task.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import nn

from lab.console import LabError, UsageError


@dataclass(frozen=True)
class Design:
    """How a network of some name is built."""

    config: type  # dataclass of its arguments
    build: Callable[[Any], nn.Module]  # from a config to the untrained network
    fixed: Mapping[str, Any] = field(default_factory=dict)  # arguments that the name stands for

    def configure(self, arguments: Mapping[str, Any]) -> Any:
        """Return the config of some arguments; a TypeError where they do not fit."""
        return self.config(**(self.fixed | arguments))


Designs = Mapping[str, Design]


def new_config(designs: Designs, name: str, **known: Any) -> Any:
    """Return the config of a new network, of all that is `known` what it has an argument for.

    Raises:
        UsageError: no such network.
    """
    if name not in designs:
        raise UsageError(f"--network {name}: there are {', '.join(designs)}")
    names = {entry.name for entry in fields(designs[name].config)}
    return designs[name].configure({key: known[key] for key in known.keys() & names})


def build(designs: Designs, name: str, configs: Mapping[str, Any]) -> nn.Module:
    """Build an untrained network from what a checkpoint holds of it.

    Raises:
        LabError: no such network, or the configs are not its own.
    """
    if name not in designs:
        raise LabError(f"unknown network {name!r}; there are {', '.join(designs)}")
    with fitting(name):
        return designs[name].build(designs[name].configure(configs))


@contextmanager
def fitting(name: str) -> Iterator[None]:
    """Turn what is wrong with a network's configs into a LabError."""
    try:
        yield
    except (TypeError, KeyError, ValueError) as error:
        raise LabError(f"the configs do not fit the network {name!r}: {error}") from error


def check_same(
    designs: Designs, name: str, config: Any, state: Mapping[str, Any], path: Path
) -> None:
    """Raise a LabError that names the first difference to a checkpoint's network, if there is.

    So do configs of the checkpoint that are not its network's own.
    """
    saved = {"network": state.get("network", name)}
    if saved["network"] == name:
        with fitting(name):
            saved |= asdict(designs[name].configure(state["configs"]))
    for key, value in ({"network": name} | asdict(config)).items():
        if saved.get(key) != value:
            raise LabError(
                f"{path} holds another network: {key} is {saved.get(key)} there, {value} here; "
                "leave out the flags of the network to go on with its own"
            )
