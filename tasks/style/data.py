"""Photographs that a network learns to paint, from a folder; there is no target to them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lab import decoding
from lab.batches import load_batches
from lab.console import LabError, say
from lab.images import Preprocess, open_image, say_left_out
from lab.runtime import upload


def squares_of(size: int) -> Preprocess:
    """Return what makes squares, `size` pixels a side, of the middle of photographs."""
    return Preprocess((size, size), resize=size)


class Photographs(Dataset):
    """Photographs to be painted, asked for a batch at a time.

    Args:
        pixels: uint8 (N, size, size, 3).

    Attributes:
        preprocess: from a photograph to a network's input.
    """

    def __init__(self, pixels: Tensor):
        self.pixels, self.preprocess = pixels, squares_of(pixels.shape[1])

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, None]:
        chosen = upload(torch.as_tensor(indices), self.pixels.device)
        return self.preprocess.normalize(self.pixels[chosen]), None


def read_photographs(folder: Path, size: int) -> Tensor:
    """Decode the photographs under a folder, each once: uint8 (N, size, size, 3).

    Of more than fit in `decoding.CACHE_BUDGET` bytes, as many are taken as do, from all over the
    folder.

    Raises:
        LabError: no folder, or no readable image in it.
    """
    if not folder.is_dir():
        raise LabError(f"no folder {folder}; --data_root takes one of photographs")
    known, preprocess = Image.registered_extensions(), squares_of(size)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in known)
    most = max(1, decoding.CACHE_BUDGET // (3 * size**2))
    if len(paths) > most:
        say(f"{folder}: {most:,} of {len(paths):,} images are used, all that fit in memory")
        paths = [paths[index * len(paths) // most] for index in range(most)]

    def read(path: Path) -> np.ndarray:
        return preprocess.fit(open_image(path))

    decoded = list(decoding.decode(read, paths, f"reading {folder}"))
    problems = {path: problem for path, _, problem in decoded if problem}
    say_left_out(folder, len(paths), problems)
    if len(problems) == len(paths):
        raise LabError(f"{folder} holds no readable image; --data_root takes a folder of them")
    return torch.from_numpy(np.stack([pixels for _, pixels, problem in decoded if not problem]))


def make_loader(
    pixels: Tensor, batch_size: int, training: bool, device: torch.device, **options: int
) -> DataLoader:
    """Return a loader of `Photographs`, which is on a device; options as of `load_batches`."""
    return load_batches(Photographs(pixels.to(device)), batch_size, training, **options)
