"""The detectors by name: our own, and torchvision's."""

from dataclasses import asdict

from lab.registry import Design
from tasks.blocks import fold
from tasks.detection.centernet import CenterNet, CenterNetConfig
from tasks.detection.detector import Detector
from tasks.detection.ssd import TinySSD, TinySSDConfig
from tasks.detection.torchvision_detectors import PUBLISHED, TorchvisionDetector

NETWORKS = {
    "tiny_ssd": Design(TinySSDConfig, lambda config: TinySSD(**asdict(config))),
    "center_net": Design(CenterNetConfig, CenterNet),
} | PUBLISHED


def folded(network: Detector) -> Detector:
    """Return a network, in place, as quick as it can be, to the last bits the same.

    Figures are of the network as trained, so that test.py's are train.py's.
    """
    # torchvision's do not all list their layers in the order of use.
    return network if isinstance(network, TorchvisionDetector) else fold(network)
