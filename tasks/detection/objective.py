"""The losses of a detector, and the meter that ranks it."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

from tasks.detection.detector import Detector, Target
from tasks.detection.meter import DetectionMeter, are_signs


class DetectionObjective:
    """The network's own losses, ranked by average precision at an IoU of 0.5.

    Args:
        classes: names, by label. Of signs, that of "a sign" ranks: there are too few of some.
    """

    def __init__(self, classes: Iterable[str]):
        self.classes = tuple(classes)
        self.ranks_by = "sign_ap50" if are_signs(self.classes) else "ap50"

    def loss(
        self, network: Detector, images: Tensor, targets: list[Target]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of a network's losses, and each of them."""
        losses = network(images, targets)
        return sum(losses.values()), losses

    def meter(self) -> DetectionMeter:
        return DetectionMeter(self.classes)


def restore(state: dict[str, Any]) -> DetectionObjective:
    """Return the objective of a checkpoint."""
    return DetectionObjective(state["class_names"])
