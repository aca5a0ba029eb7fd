"""What every detector is, and what goes in and comes out of it.

    losses = network(images, targets)           # scalars by name, means over the images
    detections = network.detect(images)         # of each image

Images are network input, (N, 3, H, W); boxes are (k, 4), left, top, right, bottom, in pixels.
A `Target` is a dictionary an image: `boxes`, `labels` int64 (k,) from 0, and `ignored` bool (k,),
of what need not be found and is no background either.
`Detections`, likewise: `boxes`, `scores` in [0, 1] and `labels`, the most certain ones first.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, remove_small_boxes

from tasks.blocks import fill

Target = dict[str, Tensor]
Detections = dict[str, Tensor]

LEAST_SCORE = 0.05  # of what counts as found
SHOWN_SCORE = 0.3  # from which a picture shows what is found
MOST_FOUND = 100  # in an image
SAME = 0.5  # IoU of boxes that are taken for one object's
LEAST_SIDE = 64  # pixels, of which the coarsest map has one position


class Detector(nn.Module):
    """A network that finds objects in images of any size.

    One of its own has `_detect(images, threshold)` and `_features(images)`, of images so filled.

    Attributes:
        stride: images are filled up to multiples of it, on the right and below.
        outputs: names of the layers that tell classes apart.
    """

    stride = 1
    outputs: tuple[str, ...]

    def detect(self, images: Tensor, threshold: float = LEAST_SCORE) -> list[Detections]:
        """Return what is found in each image, boxes cut off at its edges.

        Args:
            threshold: score from which something counts as found.
        """
        height, width = images.shape[-2:]
        detections = []
        for each in self._detect(self.fill(images), threshold):
            boxes = clip_boxes_to_image(each["boxes"].float(), (height, width))
            kept = remove_small_boxes(boxes, 1)[:MOST_FOUND]
            scores, labels = each["scores"].float(), each["labels"]
            own = {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
            detections.append(own)
        return detections

    def fill(self, images: Tensor) -> Tensor:
        """Return images of sides that the network takes: nothing changes within."""
        return fill(images, self.stride, LEAST_SIDE)

    def features(self, images: Tensor) -> tuple[Tensor, int]:
        """Return the finest map that objects are told from, (N, C, H', W'), and its stride."""
        filled = self.fill(images)
        features = self._features(filled)
        return features, round(filled.shape[3] / features.shape[3])


def split_targets(targets: Sequence[Target]) -> tuple[list[Target], list[Tensor]]:
    """Return of each image what is to be found there, and the boxes that are to be ignored."""
    sought = []
    for target in targets:
        clear = ~target["ignored"]
        sought.append({"boxes": target["boxes"][clear], "labels": target["labels"][clear]})
    return sought, [target["boxes"][target["ignored"]] for target in targets]


def in_any_box(points: Tensor, boxes: Tensor) -> Tensor:
    """Return which points, (..., 2), x and y, lie in one of some boxes (k, 4): bool (...)."""
    points = points.unsqueeze(-2)  # (..., 1, 2)
    return ((points >= boxes[:, :2]) & (points < boxes[:, 2:])).all(-1).any(-1)
