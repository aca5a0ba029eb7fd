"""Pictures of which training sees windows and testing the whole: those with boxes or labels.

class DetectionDataset(WindowDataset):
    def cut_windows(self, indices, windows, generator): ...  # uint8 (N, 3, H, W), what is in them
    def vary(self, images, generator): ...                   # what differs from camera to camera
    def whole(self, indices): ...                            # `whole_images`, what is in them
    def truth(self, index): ...                              # what is in a picture, on the CPU
    def shows(self, index): ...                              # how much that is
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lab.batches import load_batches
from lab.images import as_input, centred, open_image
from lab.runtime import has_room, upload
from tasks.annotated import shrink


class WindowDataset(Dataset):
    """Pictures of one split; asked for a batch at a time (`__getitems__`).

    Args:
        split: with `classes`, `paths`, `as_stored`, `longest`, and `pictures`, uint8 (H, W, 3)
            each, or None where they are read from disk.
        windows: cut training windows so; None for whole pictures.
        device: where batches are made.
    """

    def __init__(self, split: Any, windows: Any = None, device: str | torch.device = "cpu"):
        self.split, self.windows, self.device = split, windows, device
        self.classes = split.classes
        self._held = self.hold(split.pictures)

    @classmethod
    def loader(
        cls,
        split: Any,
        batch_size: int,
        windows: Any = None,
        num_workers: int = 0,
        *,
        device: str | torch.device = "cpu",
        **options: int,
    ) -> DataLoader:
        """Return a loader of a split.

        Args:
            split, windows: as above; windows are shuffled, whole pictures come in order.
            batch_size: images a batch, over all processes.
            num_workers: processes that make batches; 0 for this one.
            device: where batches are made; with workers, the CPU.
            options: seed, rank and world_size of `load_batches`.
        """
        dataset = cls(split, windows, "cpu" if num_workers else device)
        return load_batches(dataset, batch_size, windows is not None, num_workers, **options)

    def __len__(self) -> int:
        return len(self.split.paths) * (self.windows.each if self.windows else 1)

    def picture(self, index: int) -> np.ndarray:
        """Return a whole picture, uint8 (H, W, 3)."""
        if self.split.pictures is not None:
            return self.split.pictures[index]
        path = self.split.paths[index]
        return shrink(open_image(path, path not in self.split.as_stored), self.split.longest)

    @property
    def cut_on(self) -> str | torch.device:
        """Where windows are cut: the device, if the pictures have room there."""
        return "cpu" if self._held is None else self.device

    def pixels(self, index: int) -> Tensor:
        """Return a picture that windows are cut out of, where that is done: uint8 (H, W, 3)."""
        return torch.from_numpy(self.picture(index)) if self._held is None else self._held[index]

    def hold(self, arrays: Sequence[np.ndarray] | None) -> list[Tensor] | None:
        """Return arrays on the device, where windows are cut and there is room; else None."""
        if self.windows is None or arrays is None:
            return None
        if not has_room(self.device, sum(array.nbytes for array in arrays)):
            return None
        return [upload(torch.from_numpy(array), self.device) for array in arrays]

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Any]:
        if self.windows is None:
            return self.whole(indices)
        generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
        windows = self.windows_in(getattr(indices, "epoch", 1))
        own = [k // self.windows.each for k in indices]
        pixels, targets = self.cut_windows(own, windows, generator)
        images = centred(upload(pixels, self.device))
        return self.vary(images, generator) if self.windows.vary else images, targets

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        images, targets = self.__getitems__([index])
        return images[0], targets[0]

    def whole_images(self, indices: Sequence[int]) -> Tensor:
        """Return whole pictures, (N, 3, H, W), with 0 beyond those that are smaller."""
        pictures = [self.picture(index) for index in indices]
        height, width = (max(sides) for sides in zip(*(p.shape[:2] for p in pictures), strict=True))
        images = torch.zeros(len(pictures), 3, height, width, device=self.device)
        for image, picture in zip(images, pictures, strict=True):
            own = image[:, : picture.shape[0], : picture.shape[1]]
            own.copy_(upload(as_input(picture), self.device)[0])
        return images

    def windows_in(self, epoch: int) -> Any:
        """Return how windows are cut in an epoch, from 1."""
        return self.windows
