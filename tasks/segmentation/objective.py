"""Cross-entropy and Dice loss of labelled pixels, and how good labels are.

    objective = SegmentationObjective(classes, class_weights(shares))
    loss = objective.loss(network, images, labels)
    meter = objective.meter()
    meter.update(network, images, labels)
    meter.compute(runtime)          # {"loss": 0.4, "miou": 0.71, ...}
    meter.iou                       # of each class, (C,), NaN where there is none of it

| figure | |
|---|---|
| `miou` | mean over classes of intersection over union, of the true and the predicted pixels |
| `pixel_accuracy` | share of the labelled pixels that are right |
| `class_accuracy` | mean over classes of the share of its pixels that are right |

All of them come from one confusion matrix, summed over all pictures and processes first. A mean of
each picture's figures is another number: a class that a picture hardly shows would count as much as
one that fills it. Pixels that are not labelled count nowhere; nor do classes that are neither there
nor predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.objective import Sums
from lab.runtime import Runtime, upload
from networks import at_least_float32
from tasks.segmentation.labels import IGNORED
from tasks.segmentation.networks import Segmenter

EVENNESS = 1.1  # of the classes' weights; ENet's is 1.02


class SegmentationObjective:
    """Cross-entropy of every pixel and the Dice loss of every class, ranked by mean IoU.

    Args:
        classes: names, by label.
        weights: of each class's pixels in the cross-entropy; None for 1.
    """

    ranks_by = "miou"

    def __init__(self, classes: Iterable[str], weights: Iterable[float] | None = None):
        self.classes = tuple(classes)
        self.weights = None if weights is None else torch.tensor(list(weights))

    def loss(self, network: Segmenter, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of images (N, 3, H, W) with labels (N, H, W)."""
        scores = at_least_float32(network(images))
        labels = subsample(labels, scores.shape[2])
        return self.cross_entropy(scores, labels) + dice_loss(scores, labels)

    def cross_entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over images of the mean over each one's labelled pixels.

        Args:
            scores: (N, C, H, W).
            labels: (N, H, W).
        """
        if self.weights is not None:  # they stay where they were needed once
            with torch.inference_mode(False):  # by training or by a test
                self.weights = upload(self.weights, scores.device)
        losses = F.cross_entropy(
            at_least_float32(scores), labels, self.weights, ignore_index=IGNORED, reduction="none"
        )
        return (losses.sum((1, 2)) / (labels != IGNORED).sum((1, 2)).clamp(min=1)).mean()

    def meter(self) -> SegmentationMeter:
        return SegmentationMeter(self.classes, self.cross_entropy)


def subsample(labels: Tensor, height: int) -> Tensor:
    """Return the label of one pixel of each cell that scores stand for.

    To enlarge the scores first would take a fifth of a step's time, and neighbours hardly differ.

    Args:
        labels: (N, H, W).
        height: of the scores, a divisor of H; cells are as many pixels wide as high.
    """
    cell = labels.shape[1] // height
    if cell == 1:
        return labels
    # Another pixel in each image, since none lies in the middle.
    places = (divmod(k % cell**2, cell) for k in range(len(labels)))
    return torch.stack([own[y::cell, x::cell] for own, (y, x) in zip(labels, places, strict=True)])


def dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - Dice, a mean over the classes that the batch has.

    Dice is twice the overlap of the predicted and the true over the sum of both, predicted by
    degrees (Milletari et al. 2016, section 3, with sums for sums of squares). It is close to the
    IoU that is wanted, in which a class of few pixels counts as much as one of many.

    Args:
        scores: (N, C, H, W), float32.
        labels: (N, H, W).
    """
    labelled = labels != IGNORED
    true = F.one_hot(labels.where(labelled, 0), scores.shape[1]).movedim(3, 1)  # as scores
    true = true * labelled.unsqueeze(1)
    predicted = scores.softmax(1) * labelled.unsqueeze(1)
    overlap, counts = (predicted * true).sum((0, 2, 3)), true.sum((0, 2, 3))
    losses = 1 - 2 * overlap / (predicted.sum((0, 2, 3)) + counts).clamp(min=1)
    there = counts > 0
    return (losses * there).sum() / there.sum().clamp(min=1)


def class_weights(shares: np.ndarray) -> list[float]:
    """Return weights that are higher for rarer classes, 1 in the mean over pixels.

    1 / ln(c + share), as ENet has them (Paszke et al. 2016, section 5.2), but with a higher c: the
    more a class that is hardly there counts, the more pixels of others are given to it, which
    costs IoU.

    Args:
        shares: of each class in the pixels, (C,).
    """
    weights = 1 / np.log(EVENNESS + shares)
    return (weights / (weights * shares).sum()).tolist()


def restore(state: dict[str, Any]) -> SegmentationObjective:
    """Return the objective of a checkpoint."""
    return SegmentationObjective(state["class_names"], state.get("class_weights"))


class SegmentationMeter:
    """Intersection over union of a network's labels with the true ones.

    Args:
        classes: names, by label.
        loss: (scores of every pixel, labels) to a mean over images.

    Attributes:
        matrix: int64 (C, C), pixels of (true, predicted); after `compute`, of all processes.
        figures: what `compute` returned.
    """

    def __init__(self, classes: Sequence[str], loss: Callable[[Tensor, Tensor], Tensor]):
        self.classes, self.loss = tuple(classes), loss
        self.matrix = torch.zeros(len(self.classes), len(self.classes), dtype=torch.int64)
        self.losses, self.images = Sums(), 0
        self.figures: dict[str, float] = {}

    def update(self, network: Segmenter, images: Tensor, labels: Tensor) -> None:
        """Label a batch of pictures, (N, 3, H, W), whose labels are (N, H, W)."""
        scores = network.segment(images)
        matrix = confusion_matrix(labels, scores.argmax(1), len(self.classes))
        self.matrix = self.matrix.to(labels.device) + matrix
        self.losses.add(self.loss(scores, labels)[None], len(images))
        self.images += len(images)

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return the figures by name, over the pictures of all processes."""
        (own,) = self.losses.now() or [0.0]
        total, images = runtime.totals(own, self.images)
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
        """IoU of each class, float64 (C,); NaN for one that is neither there nor predicted."""
        matrix = self.matrix.cpu()
        right = matrix.diag().double()
        return right / (matrix.sum(0) + matrix.sum(1) - right)


def confusion_matrix(labels: Tensor, predicted: Tensor, count: int) -> Tensor:
    """Return how many pixels of each true class were taken for each, int64 (count, count).

    Args:
        labels, predicted: int64, of one shape; where labels are IGNORED, nothing is counted.
    """
    known = labels != IGNORED
    pairs = count * labels[known] + predicted[known]
    return pairs.bincount(minlength=count * count).view(count, count)
