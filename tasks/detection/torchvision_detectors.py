"""torchvision's detectors by name, as detectors of ours: Faster R-CNN, SSD and so on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models import detection
from torchvision.models.detection.ssd import SSD
from torchvision.ops import nms

from lab.registry import Design
from lab.weights import load_body
from tasks.detection.detector import SAME, Detections, Detector, Target, split_targets


@dataclass(frozen=True)
class TorchvisionConfig:
    """All that is needed to build one of torchvision's; saved in its checkpoints as `configs`."""

    name: str  # in torchvision's registry
    num_classes: int


def build_bare(config: TorchvisionConfig) -> nn.Module:
    """Build one of torchvision's as it is there, untrained; background is one class more."""
    return models.get_model(
        config.name, weights=None, weights_backbone=None, num_classes=config.num_classes + 1
    )


class TorchvisionDetector(Detector):
    """One of torchvision's detectors.

    They see a picture in a size of their own, which small signs do not survive. Those whose anchors
    are of so many pixels see it as it is instead; SSD's are shares of a picture of one size, to
    which it shrinks every other.

    Of what they find in one place, each class keeps a box; here the likeliest of all classes does,
    as of our own detectors: one sign that might be two is still one sign.
    """

    def __init__(self, config: TorchvisionConfig):
        super().__init__()
        self.config, self.network = config, build_bare(config)
        # From [-1, 1], which our images are in.
        transform = self.network.transform
        transform.image_mean = [2 * mean - 1 for mean in transform.image_mean]
        transform.image_std = [2 * std for std in transform.image_std]

    @property
    def outputs(self) -> tuple[str, ...]:
        """Those whose weights become more with the classes."""
        with torch.device("meta"):
            larger = build_bare(replace(self.config, num_classes=self.config.num_classes + 1))
        own, larger = self.network.state_dict(), larger.state_dict()
        names = [name for name, value in larger.items() if value.shape != own[name].shape]
        return tuple(dict.fromkeys(f"network.{name}".rpartition(".")[0] for name in names))

    def load_published(self, weights: dict[str, Tensor]) -> tuple[str, ...]:
        """Load weights as torchvision publishes them; return the names of layers that are new."""
        weights = {f"network.{name}": value for name, value in weights.items()}
        return load_body(self, weights, self.outputs)

    def forward(
        self, images: Tensor, targets: Sequence[Target] | None = None
    ) -> list[Detections] | dict[str, Tensor]:
        """Return torchvision's detections, whose classes begin at 1; with targets its losses."""
        if not isinstance(self.network, SSD):
            *_, height, width = images.shape
            self.network.transform.min_size = (min(height, width),)
            self.network.transform.max_size = max(height, width)
        if targets is None:
            return self.network(list(images))
        sought = [own | {"labels": own["labels"] + 1} for own in split_targets(targets)[0]]
        with self._learning():
            return self.network(list(images), sought)

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Have the network return losses, whichever mode its layers are in."""
        resting = [module for module in self.network.modules() if not module.training]
        own = [m for m in resting if type(m).__module__.startswith(detection.__name__)]
        for module in own:
            module.training = True
        try:
            yield
        finally:
            for module in own:
                module.training = False

    def _features(self, images: Tensor) -> Tensor:
        return next(iter(self.network.backbone(images).values()))

    def _detect(self, images: Tensor, threshold: float) -> list[Detections]:
        detections = []
        for own in self(images):
            own = {name: values[own["scores"] >= threshold] for name, values in own.items()}
            kept = nms(own["boxes"].float(), own["scores"].float(), SAME)
            own = {name: values[kept] for name, values in own.items()}
            detections.append(own | {"labels": own["labels"] - 1})
        return detections


PUBLISHED = {
    name: Design(TorchvisionConfig, TorchvisionDetector, {"name": name})
    for name in models.list_models(module=detection)
    if not name.startswith(("mask", "keypoint"))
}
