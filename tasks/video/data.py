"""Clips of several sources, as batches that are made and varied whole.

    split = read_split("motion", root, "train", frames=16)
    loader = make_loader(split, batch_size=64, shuffle=True, seed=0)

A loader yields float32 clips in [-1, 1], (N, 3, T, 32, 32), and int64 labels, (N,).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import datasets
from datasets import MODES, VAL_SHARE, track
from lab.augmentation import move, vary_light
from lab.batches import load_batches
from lab.console import LabError, progress, say
from lab.folders import DATA_ROOT, near
from lab.images import say_left_out
from tasks.video.files import PREPROCESS, read_folder
from world import clips as drawn

DIRECTIONS = ("forwards", "backwards")
# Of the augmentation: cameras shake less within a clip than photographs differ.
ROTATION, SHIFT, SCALE, SHEAR = 0.1, 0.06, 0.1, 0.05


@dataclass(frozen=True)
class Split:
    """Clips of one split, as read.

    Attributes:
        classes: names; a label is an index into them.
        clips: uint8 (N, T, H, W, 3).
        labels: int64 (N,).
        names: of the clips.
    """

    classes: tuple[str, ...]
    clips: Tensor
    labels: Tensor
    names: list[str]


# ---------------------------------------------------------------- drawn clips


def drawn_folder(kind: str, root: Path, frames: int) -> Path:
    """Return the folder of a drawn data set."""
    return root / f"{kind}_{frames}"


def draw_missing(kind: str, root: Path, frames: int) -> None:
    """Draw a data set where there is none.

    Raises:
        LabError: the folder holds a part of one, or cannot be written.
    """
    folder = drawn_folder(kind, root, frames)
    if (folder / "train").is_dir():
        return
    total = sum(drawn.KINDS[kind].counts.values())
    say(f"No clips in {near(folder)}: drawing {total:,} of {frames} frames, once.")
    try:
        with progress(total=total, label="drawing") as bar:
            drawn.draw_dataset(folder, kind, frames, progress=bar.update)
    except OSError as error:
        raise LabError(f"cannot draw into {folder}: {error.strerror or error}") from error


def read_drawn(
    kind: str, root: Path, mode: str, frames: int, stride: int, val_share: float
) -> Split:
    """Read a split of a drawn data set."""
    folder = drawn_folder(kind, root, frames)
    try:
        clips, labels = drawn.read_dataset(folder, mode)
    except (OSError, ValueError) as error:
        raise LabError(f"{folder / mode} is damaged ({error}); remove {folder}") from error
    names = [f"{index:05d}" for index in range(len(labels))]
    classes = drawn.KINDS[kind].classes
    return Split(classes, torch.from_numpy(clips), torch.from_numpy(labels), names)


# ---------------------------------------------------------------- tracks of photographs


def read_tracks(root: Path, mode: str, frames: int, stride: int, val_share: float) -> Split:
    """Read photographs named TTTTT_FFFFF as clips: frames spread over each track.

    Tracks of fewer photographs are named and left out.
    """
    images = datasets.read_split(root, mode, PREPROCESS, val_share)
    if images.images is None:
        raise LabError(f"{root} holds more photographs than fit in memory")
    tracks: dict[tuple[int, str], list[int]] = {}
    for index, (path, label) in enumerate(zip(images.paths, images.labels.tolist(), strict=True)):
        tracks.setdefault((label, track(path)), []).append(index)
    long_enough = {key: own for key, own in tracks.items() if len(own) >= frames}
    say_left_out(
        root / mode,
        len(tracks),
        {
            root / mode / images.classes[label] / name: f"{len(own)} photographs"
            for (label, name), own in tracks.items()
            if len(own) < frames
        },
    )
    if not long_enough:
        raise LabError(f"{root / mode} holds no track of {frames} photographs (TTTTT_FFFFF.jpg)")
    chosen = [
        [own[k] for k in np.linspace(0, len(own) - 1, frames).round().astype(int)]
        for own in long_enough.values()
    ]
    labels = torch.tensor([label for label, _ in long_enough])
    names = [f"{images.classes[label]}/{name}" for label, name in long_enough]
    return Split(images.classes, images.images[torch.tensor(chosen)], labels, names)


def read_directions(root: Path, mode: str, frames: int, stride: int, val_share: float) -> Split:
    """Read tracks, each of them forwards and backwards; which of the two is the label.

    Of an odd number of frames the middle one is the same both ways.
    """
    tracks = read_tracks(root, mode, frames, stride, val_share)
    both = torch.stack((tracks.clips, tracks.clips.flip(1)), 1).flatten(0, 1)
    labels = torch.arange(2).repeat(len(tracks.clips))
    names = [f"{name} {way}" for name in tracks.names for way in DIRECTIONS]
    return Split(DIRECTIONS, both, labels, names)


# ---------------------------------------------------------------- clips of one's own


def read_own(root: Path, mode: str, frames: int, stride: int, val_share: float) -> Split:
    """Read videos and folders of frames, a folder a class."""
    classes, clips, labels, names = read_folder(root, mode, frames, stride, val_share)
    return Split(classes, torch.from_numpy(clips), torch.tensor(labels), names)


# ---------------------------------------------------------------- data sets by name


@dataclass(frozen=True)
class Source:
    """A data set that the scripts know by name.

    Attributes:
        read: (folder, mode, frames, stride, val_share) to a `Split`.
        folder: where it is unless told otherwise; None where it has to be told.
        prepare: (folder, frames) makes what is missing; None where nothing can be made.
        frames: of its clips, unless told otherwise.
    """

    read: Callable[..., Split]
    folder: Path | None
    prepare: Callable[[Path, int], None] | None = None
    frames: int = drawn.FRAMES


CLIPS = DATA_ROOT / "clips"
SOURCES = {
    **{
        kind: Source(partial(read_drawn, kind), CLIPS, partial(draw_missing, kind), frames)
        for kind, frames in {"motion": 16, "order": 16, "memory": 64}.items()
    },
    "tracks_direction": Source(read_directions, DATA_ROOT / "gtsrb26", frames=15),
    "tracks_sign": Source(read_tracks, DATA_ROOT / "gtsrb26", frames=15),
    "clips": Source(read_own, None),
}


def modes_of(dataset: str, root: Path) -> tuple[str, ...]:
    """Return the splits there are: folders may do without test/."""
    drawn_here = dataset in drawn.KINDS or (root / "test").is_dir()
    return MODES if drawn_here else MODES[:2]


def read_split(
    dataset: str,
    root: Path,
    mode: str,
    frames: int,
    stride: int = 1,
    val_share: float = VAL_SHARE,
) -> Split:
    """Read a split of a data set.

    Args:
        frames: of each clip.
        stride: from one frame of a video to the next that is taken.
        val_share: of train, held out as val where there is no val.

    Raises:
        LabError: no such split, or nothing readable in it.
    """
    return SOURCES[dataset].read(root, mode, frames, stride, val_share)


# ---------------------------------------------------------------- the loader


def as_input(pixels: Tensor) -> Tensor:
    """Return clips, uint8 (N, T, H, W, 3), as network input, (N, 3, T, H, W) in [-1, 1].

    The memory stays in the order of the pixels.
    """
    return pixels.permute(0, 4, 1, 2, 3).float().div_(127.5).sub_(1)


def augment_clips(clips: Tensor, generator: torch.Generator) -> Tensor:
    """Move and light each clip differently, all its frames alike.

    Args:
        clips: (N, 3, T, H, W) in [-1, 1].
        generator: of the CPU.
    """
    as_channels = clips.flatten(1, 2)
    moved = move(as_channels, generator, ROTATION, SHIFT, SCALE, SHEAR)
    return vary_light(moved.unflatten(1, clips.shape[1:3]), generator)


class ClipDataset(Dataset):
    """Clips of one split; asked for a batch at a time (`__getitems__`).

    Args:
        split: what `read_split` returned.
        augment: vary the clips.
        device: where the clips live and batches are made.
    """

    def __init__(self, split: Split, augment: bool = False, device: str | torch.device = "cpu"):
        self.split, self.augment, self.classes = split, augment, split.classes
        self.clips, self.labels = split.clips.to(device), split.labels.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def frames(self, index: int) -> np.ndarray:
        """Return a clip's frames, uint8 (T, H, W, 3)."""
        return self.clips[index].cpu().numpy()

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = torch.as_tensor(indices, device=self.labels.device)
        clips = as_input(self.clips[chosen])
        if self.augment:
            generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
            clips = augment_clips(clips, generator)
        return clips, self.labels[chosen]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        clips, labels = self.__getitems__([index])
        return clips[0], int(labels[0])


def make_loader(
    split: Split,
    batch_size: int,
    shuffle: bool = False,
    augment: bool = False,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: str | torch.device = "cpu",
) -> DataLoader:
    """Return a loader of a split, as this module's docstring says.

    Args:
        split: what `read_split` returned.
        batch_size: clips a batch, over all processes.
        shuffle: draw the clips in another order each epoch.
        augment: vary the clips.
        seed: of the order and the augmentation.
        rank, world_size: this process's share of each batch is every `world_size`-th clip.
        device: where batches are made.
    """
    dataset = ClipDataset(split, augment, device)
    return load_batches(dataset, batch_size, shuffle, seed=seed, rank=rank, world_size=world_size)
