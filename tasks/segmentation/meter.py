"""How good a network labels pixels: all from one confusion matrix of all pixels.

    meter = SegmentationMeter(classes, loss)
    meter.update(model, images, labels)
    meter.compute(runtime)          # {"loss": 0.4, "miou": 0.71, ...}
    meter.iou                       # of each class, (C,), NaN where there is none of it

| figure | |
|---|---|
| `miou` | mean over classes of true and found over true or found: intersection over union |
| `pixel_accuracy` | share of the labelled pixels that are right |
| `class_accuracy` | mean over classes of the share of its pixels that are right |

The matrix is summed over all pictures and processes first. A mean of each picture's figures is
another number: a class that a picture hardly shows would count as much as one that fills it.
Pixels that are not labelled count nowhere; nor do classes that are neither there nor found.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tasks.segmentation.labels import IGNORED
from tasks.segmentation.segmenter import Segmenter

if TYPE_CHECKING:
    from lab.runtime import Runtime


class SegmentationMeter:
    """Intersection over union of a network's labels with the true ones.

    Args:
        classes: names, by label.
        loss: (scores of every pixel, labels) to a mean over images.

    Attributes:
        matrix: int64 (C, C), pixels of (true, found); after `compute`, of all processes.
        figures: what `compute` returned.
    """

    def __init__(self, classes: Sequence[str], loss: Callable[[Tensor, Tensor], Tensor]):
        self.classes, self.loss = tuple(classes), loss
        self.matrix = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64)
        self.sums = torch.zeros(2, dtype=torch.float64)  # of the loss over images, and images
        self.figures: dict[str, float] = {}

    def update(self, model: Segmenter, images: Tensor, labels: Tensor) -> None:
        """Label a batch of pictures, (N, 3, H, W), whose labels are (N, H, W)."""
        scores = model.segment(images)
        matrix = confusion_matrix(labels, scores.argmax(1), len(self.classes))
        self.matrix = self.matrix.to(labels.device) + matrix
        loss = self.loss(scores, labels).double() * len(images)
        self.sums = self.sums.to(loss.device) + torch.stack([loss, loss.new_tensor(len(images))])

    def compute(self, runtime: "Runtime") -> dict[str, float]:
        """Return the figures by name, over the pictures of all processes."""
        total, images = runtime.total(self.sums.to(runtime.device)).tolist()
        self.matrix = runtime.total(self.matrix.to(runtime.device)).cpu()
        right, true = self.matrix.diag().double(), self.matrix.sum(1)
        accuracies = right / true
        self.figures = {
            "loss": total / max(1.0, images),
            "miou": float(self.iou.nanmean()),
            "pixel_accuracy": float(right.sum() / true.sum()),
            "class_accuracy": float(accuracies.nanmean()),
        }
        return self.figures

    @property
    def iou(self) -> Tensor:
        """IoU of each class, float64 (C,); NaN for one that is neither there nor found."""
        right = self.matrix.diag().double()
        return right / (self.matrix.sum(0) + self.matrix.sum(1) - right)


def confusion_matrix(labels: Tensor, found: Tensor, count: int) -> Tensor:
    """Return how many pixels of each true class were found to be of each, int64 (count, count).

    Args:
        labels, found: int64, of one shape; where labels are IGNORED, nothing is counted.
    """
    known = labels != IGNORED
    pairs = count * labels[known] + found[known]
    return pairs.bincount(minlength=count * count).view(count, count)
