"""The networks of pixels by name."""

from dataclasses import asdict
from typing import Any

from lab.console import LabError, UsageError
from tasks.segmentation.fcn import FCN, FCNConfig
from tasks.segmentation.resunet import ResUNet, ResUNetConfig
from tasks.segmentation.segmenter import Segmenter

FINEST = {"fcn_32s": 32, "fcn_16s": 16, "fcn_8s": 8}  # the stride in a name of Long et al.'s
# Each with the dataclass that holds its arguments.
NETWORKS = {"res_unet": (ResUNet, ResUNetConfig), **dict.fromkeys(FINEST, (FCN, FCNConfig))}


def make_configs(name: str, num_classes: int) -> dict[str, Any]:
    """Return the configs of a new network.

    Raises:
        UsageError: no such network.
    """
    if name not in NETWORKS:
        raise UsageError(f"--network {name}: there are {', '.join(NETWORKS)}")
    if name in FINEST:
        return asdict(FCNConfig(num_classes, FINEST[name]))
    return asdict(ResUNetConfig(num_classes))


def build_network(name: str, configs: dict[str, Any]) -> Segmenter:
    """Build an untrained network.

    Raises:
        LabError: no such network, or the configs are not its own.
    """
    if name not in NETWORKS:
        raise LabError(f"unknown network of pixels {name!r}")
    network, config = NETWORKS[name]
    try:
        return network(**asdict(config(**configs)))
    except (TypeError, KeyError) as error:
        raise LabError(f"the configs do not fit the network {name!r}: {error}") from error
