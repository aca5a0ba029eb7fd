"""Cross-entropy, and a meter of accuracy; of images, and of whatever else has one label each."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.objective import Sums
from lab.runtime import Runtime


class ClassificationObjective:
    """Cross-entropy, ranked by accuracy.

    Args:
        label_smoothing: share of the target that is spread over all classes, in training.
    """

    ranks_by = "accuracy"

    def __init__(self, label_smoothing: float = 0.0):
        self.criterion = nn.CrossEntropyLoss(label_smoothing=label_smoothing)

    def loss(
        self, network: nn.Module, inputs: Tensor, labels: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the accuracy of inputs (N, ...) with labels (N,)."""
        logits = network(inputs)  # (N, classes)
        accuracy = (logits.argmax(1) == labels).float().mean()
        return self.criterion(logits, labels), {"accuracy": accuracy}

    def meter(self) -> ClassificationMeter:
        return ClassificationMeter()


class ClassificationMeter:
    """Cross-entropy without smoothing, and accuracy.

    Attributes:
        labels, predictions: int64 (N,), of this process's inputs seen so far.
    """

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._predictions: list[Tensor] = []
        self._losses = Sums()

    def update(self, network: nn.Module, inputs: Tensor, labels: Tensor) -> None:
        """Classify a batch."""
        logits = network(inputs).float()
        self._losses.add(F.cross_entropy(logits, labels, reduction="sum")[None])
        self._labels.append(labels)
        self._predictions.append(logits.argmax(1))

    @property
    def labels(self) -> Tensor:
        return _joined(self._labels)

    @property
    def predictions(self) -> Tensor:
        return _joined(self._predictions)

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return `loss` and `accuracy`, means over the inputs of all processes."""
        labels, predictions = self.labels, self.predictions
        correct = (labels == predictions).sum().item()
        (own,) = self._losses.now() or [0.0]
        loss, correct, count = runtime.totals(own, correct, len(labels))
        return {"loss": loss / count, "accuracy": correct / count}


def _joined(batches: list[Tensor]) -> Tensor:
    return torch.cat(batches) if batches else torch.zeros(0, dtype=torch.int64)


def restore(state: dict[str, Any]) -> ClassificationObjective:
    """Return the objective of a checkpoint: without smoothing, which is for training."""
    return ClassificationObjective()
