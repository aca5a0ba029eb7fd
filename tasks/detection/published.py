"""torchvision's detectors by name, as detectors of ours: Faster R-CNN, SSD and so on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.ssd import SSD

from tasks.detection.detector import Detections, Detector, Targets, part

NAMES = tuple(
    name
    for name in models.list_models(module=detection)
    if not name.startswith(("mask", "keypoint"))
)


@dataclass(frozen=True)
class PublishedConfig:
    """All that is needed to build one of torchvision's; saved in its checkpoints as `configs`."""

    num_classes: int


class Published(Detector):
    """One of torchvision's detectors.

    They see a picture in a size of their own, which small signs do not survive. Those whose anchors
    are of so many pixels see it as it is instead; SSD's are shares of a picture of one size, to
    which it shrinks every other.

    Args:
        name: in torchvision's registry.
    """

    def __init__(self, name: str, num_classes: int):
        super().__init__()
        self.config = PublishedConfig(num_classes)
        self.network = models.get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes + 1
        )
        # From [-1, 1], which our images are in.
        transform = self.network.transform
        transform.image_mean = [2 * mean - 1 for mean in transform.image_mean]
        transform.image_std = [2 * std for std in transform.image_std]

    def forward(
        self, images: Tensor, targets: Sequence[Targets] | None = None
    ) -> list[Detections] | dict[str, Tensor]:
        """Return torchvision's detections, whose classes begin at 1; with targets its losses."""
        if not isinstance(self.network, SSD):
            *_, height, width = images.shape
            self.network.transform.min_size = (min(height, width),)
            self.network.transform.max_size = max(height, width)
        if targets is None:
            return self.network(list(images))
        sought = [
            {"boxes": target["boxes"], "labels": target["labels"] + 1}
            for target in part(targets)[0]
        ]
        with self._learning():
            return self.network(list(images), sought)

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Have the network return losses, whichever mode its layers are in."""
        containers = [
            module
            for module in self.network.modules()
            if not module.training and type(module).__module__.startswith(detection.__name__)
        ]
        for module in containers:
            module.training = True
        try:
            yield
        finally:
            for module in containers:
                module.training = False

    def _features(self, images: Tensor) -> Tensor:
        return next(iter(self.network.backbone(images).values()))

    def _find(self, images: Tensor, threshold: float) -> list[Detections]:
        detections = []
        for found in self(images):
            kept = found["scores"] >= threshold
            detections.append(
                {
                    "boxes": found["boxes"][kept],
                    "scores": found["scores"][kept],
                    "labels": found["labels"][kept] - 1,
                }
            )
        return detections
