"""The detectors by name: our own and torchvision's."""

from dataclasses import asdict
from typing import Any

from lab.console import LabError, UsageError
from tasks.detection.centernet import CenterNet, CenterNetConfig
from tasks.detection.detector import Detector
from tasks.detection.published import NAMES, Published, PublishedConfig
from tasks.detection.ssd import BOOK_SIZES, SIGN_SIZES, TinySSD, TinySSDConfig

# Our own, each with the dataclass that holds its arguments.
NETWORKS = {"tiny_ssd": (TinySSD, TinySSDConfig), "center_net": (CenterNet, CenterNetConfig)}


def make_configs(name: str, num_classes: int, signs: bool) -> dict[str, Any]:
    """Return the configs of a new network.

    Args:
        signs: signs are to be found, which are smaller than what the book's anchors are for.

    Raises:
        UsageError: no such network.
    """
    if name == "tiny_ssd":
        return asdict(TinySSDConfig(num_classes, SIGN_SIZES if signs else BOOK_SIZES))
    if name == "center_net":
        return asdict(CenterNetConfig(num_classes))
    if name in NAMES:
        return asdict(PublishedConfig(num_classes))
    ours = ", ".join(NETWORKS)
    raise UsageError(f"--network {name}: there are {ours} and torchvision's {', '.join(NAMES)}")


def build_network(name: str, configs: dict[str, Any]) -> Detector:
    """Build an untrained detector.

    Raises:
        LabError: no such network, or the configs are not its own.
    """
    try:
        if name in NETWORKS:
            network, config = NETWORKS[name]
            return network(**asdict(config(**configs)))
        if name in NAMES:
            return Published(name, **configs)
    except TypeError as error:
        raise LabError(f"the configs do not fit the network {name!r}: {error}") from error
    raise LabError(f"unknown detector {name!r}")
