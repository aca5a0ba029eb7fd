"""A network for clips as export.py writes it: clips of frames of any size to probabilities."""

import torch
from torch import Tensor, nn

from tasks.exporting import Exported, as_images
from tasks.trained import Trained
from tasks.video.files import PREPROCESS


class ClipClassifier(nn.Module):
    """Resizes clips, uint8 (N, T, H, W, 3), and classifies them: (N, C)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        frames = as_images(clips.flatten(0, 1), PREPROCESS)  # (N * T, 3, 32, 32)
        return self.network(frames.unflatten(0, clips.shape[:2]).transpose(1, 2)).softmax(1)


def exported(trained: Trained) -> list[Exported]:
    frames = trained.state["configs"]["frames"]

    def trial(pictures: Tensor) -> tuple[Tensor]:
        """Have the camera move over pictures."""
        return (torch.stack([pictures.roll(2 * t, 2) for t in range(frames)], 1),)

    axes = {"clips": {0: "N", 2: "H", 3: "W"}}
    return [
        Exported("clips", ClipClassifier(trained.network), axes, ("probabilities",), trial=trial)
    ]
