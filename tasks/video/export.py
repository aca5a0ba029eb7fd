"""A network for clips as export.py writes it: clips of frames of any size to probabilities."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lab.console import LabError
from lab.folders import DATA_ROOT
from tasks.exporting import Exported, as_images, trial_pictures
from tasks.loaders import root_of
from tasks.showing import Shown, as_sample, evenly
from tasks.trained import Trained
from tasks.video.data import drawn_folder, test_loader
from tasks.video.files import PREPROCESS
from world.clips import KINDS

CLIPS = 12  # that a page brings


class ClipClassifier(nn.Module):
    """Resizes clips, uint8 (N, T, H, W, 3), and classifies them: (N, C)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, clips: Tensor) -> Tensor:
        frames = as_images(clips.flatten(0, 1), PREPROCESS)  # (N * T, 3, 32, 32)
        return self.network(frames.unflatten(0, clips.shape[:2]).transpose(1, 2)).softmax(1)


def moved(pictures: Tensor, frames: int) -> Tensor:
    """Have the camera move over pictures (N, H, W, 3): (N, T, H, W, 3)."""
    return torch.stack([pictures.roll(2 * t, 2) for t in range(frames)], 1)


def exported(trained: Trained) -> list[Exported]:
    frames = trained.state["configs"]["frames"]

    def trial(pictures: Tensor) -> tuple[Tensor]:
        return (moved(pictures, frames),)

    axes = {"clips": {0: "N", 2: "H", 3: "W"}}
    return [
        Exported("clips", ClipClassifier(trained.network), axes, ("probabilities",), trial=trial)
    ]


def shown(trained: Trained) -> Shown:
    clips = [
        {"strip": as_sample(Image.fromarray(np.concatenate(clip, 1)), None), "label": label}
        for clip, label in sample_clips(trained)
    ]
    facts = {"classes": trained.classes, "frames": trained.state["configs"]["frames"]}
    return Shown(exported(trained), facts=facts | {"clips": clips})


def sample_clips(trained: Trained) -> Iterator[tuple[np.ndarray, int | None]]:
    """Yield clips (T, H, W, 3) to begin with, and their labels: of the test split where it is.

    For a page, no data set is drawn.
    """
    kind, frames = trained.state["dataset"], trained.state["configs"]["frames"]
    root, dataset = root_of(trained, None) or DATA_ROOT, None
    if kind not in KINDS or drawn_folder(kind, root, frames).is_dir():
        with suppress(LabError):
            dataset = test_loader(trained, None, 1).dataset
    if dataset is None:  # it is elsewhere: the camera moves over photographs
        for pictures in islice(trial_pictures(None), 2):
            yield moved(pictures[:1, ::4, ::4], frames)[0].numpy(), None
        return
    for index in evenly(len(dataset), CLIPS):
        yield dataset.frames(index), int(dataset.labels[index])
