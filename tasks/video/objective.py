"""Cross-entropy, and a meter of accuracy; of a network that sees one frame, of each frame too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lab.runtime import Runtime
from tasks.classification.objective import ClassificationMeter, ClassificationObjective
from tasks.video.networks import SingleFrame


class VideoObjective(ClassificationObjective):
    """Cross-entropy, ranked by accuracy; the inputs are clips (N, 3, T, H, W)."""

    def meter(self) -> VideoMeter:
        return VideoMeter()


class VideoMeter(ClassificationMeter):
    """Also, of a network that sees a single frame: how often it is right about each by itself.

    Attributes:
        frame_accuracy: over all frames of all clips; None of other networks, or before `compute`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frame_accuracy: float | None = None
        self._right: list[Tensor] = []  # frames of each clip

    def update(self, network: nn.Module, clips: Tensor, labels: Tensor) -> None:
        """Classify a batch."""
        super().update(network, clips, labels)
        if isinstance(network, SingleFrame):
            right = network.every_frame(clips).argmax(2) == labels[:, None]  # (N, T)
            self._right.append(right.sum(1))
            self._frames = right.shape[1]

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return `loss` and `accuracy`, and `frame_accuracy` where there is one."""
        figures = super().compute(runtime)
        if not self._right:
            return figures
        right = torch.cat(self._right).cpu().double() / self._frames
        total, count = runtime.totals(right.sum().item(), len(right))
        self.frame_accuracy = total / count
        return figures | {"frame_accuracy": self.frame_accuracy}


def restore(state: dict[str, Any]) -> VideoObjective:
    """Return the objective of a checkpoint."""
    return VideoObjective()
