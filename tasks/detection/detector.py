"""What every detector is, and what goes in and comes out of it.

    losses = network(images, targets)           # scalars by name, means over the images
    found = network.detect(images)              # a `Detections` for each image

Images are network input, (N, 3, H, W); boxes are (k, 4), left, top, right, bottom, in pixels.
`Targets`, a dictionary an image: `boxes`, `labels` int64 (k,) from 0, and `ignored` bool (k,), of
what need not be found and is no background either.
`Detections`, likewise: `boxes`, `scores` in [0, 1] and `labels`, the most certain ones first.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

Targets = dict[str, Tensor]
Detections = dict[str, Tensor]

LEAST_SCORE = 0.05  # of what counts as found
MOST_FOUND = 100  # in an image
LEAST_SIDE = 64  # pixels, of which the coarsest map has one position


class Detector(nn.Module):
    """A network that finds objects in images of any size.

    Attributes:
        stride: images are filled up to multiples of it, on the right and below.
    """

    stride = 1

    def detect(self, images: Tensor, threshold: float = LEAST_SCORE) -> list[Detections]:
        """Return what is found in each image, boxes cut off at its edges.

        Args:
            threshold: score from which something counts as found.
        """
        height, width = images.shape[-2:]
        detections = []
        for found in self._find(self.fill(images), threshold):
            boxes = clip_boxes_to_image(found["boxes"].float(), (height, width))
            kept = remove_small_boxes(boxes, 1)[:MOST_FOUND]
            detections.append(
                {
                    "boxes": boxes[kept],
                    "scores": found["scores"][kept].float(),
                    "labels": found["labels"][kept],
                }
            )
        return detections

    def fill(self, images: Tensor) -> Tensor:
        """Return images filled up to multiples of `stride`, of at least LEAST_SIDE pixels a side.

        With 0, which is what convolutions take the outside for: nothing changes within.
        """
        below, right = (
            max(side + -side % self.stride, LEAST_SIDE) - side for side in images.shape[-2:]
        )
        return F.pad(images, (0, right, 0, below))

    def features(self, images: Tensor) -> tuple[Tensor, int]:
        """Return the finest map that objects are told from, (N, C, H', W'), and its stride."""
        filled = self.fill(images)
        features = self._features(filled)
        return features, round(filled.shape[3] / features.shape[3])

    def _find(self, images: Tensor, threshold: float) -> list[Detections]:
        raise NotImplementedError

    def _features(self, images: Tensor) -> Tensor:
        raise NotImplementedError


def part(targets: Sequence[Targets]) -> tuple[list[Targets], list[Tensor]]:
    """Return of each image what is to be found there, and the boxes that are to be ignored."""
    sought = []
    for target in targets:
        clear = ~target["ignored"]
        sought.append({"boxes": target["boxes"][clear], "labels": target["labels"][clear]})
    return sought, [target["boxes"][target["ignored"]] for target in targets]


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Return which points, (..., 2), x and y, lie in one of some boxes (k, 4): bool (...)."""
    points = points.unsqueeze(-2)  # (..., 1, 2)
    return ((points >= boxes[:, :2]) & (points < boxes[:, 2:])).all(-1).any(-1)


def as_rows(targets: Sequence[Targets], height: int, width: int) -> Tensor:
    """Return the boxes of targets as `multibox_target` takes them, (N, B, 5).

    Args:
        height, width: of the images in pixels; the boxes become shares of them.
    """
    most = max(len(target["labels"]) for target in targets)
    rows = torch.full((len(targets), most, 5), -1.0, device=targets[0]["boxes"].device)
    for row, target in zip(rows, targets, strict=True):
        count = len(target["labels"])
        row[:count, 0] = target["labels"]
        row[:count, 1:] = target["boxes"] / row.new_tensor([width, height, width, height])
    return rows
