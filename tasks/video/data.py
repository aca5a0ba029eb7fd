"""Clips of several sources, as batches that are made and varied whole.

    split = read_split("motion", root, "train", frames=16)
    loader = make_loader(split, batch_size=64, shuffle=True, seed=0)

A loader yields float32 clips in [-1, 1], (N, 3, T, 32, 32), and int64 labels, (N,).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import datasets
from datasets import VAL_SHARE
from lab.augmentation import move, vary_light
from lab.batches import load_batches
from lab.console import LabError
from lab.decoding import budget, fits_in_memory
from lab.films import clips_in
from lab.folders import DATA_ROOT, printable, split_folder
from lab.holdout import film_of_clip, group_of, held_out_films
from lab.image_folder import MODES, File, check_classes, find_files
from lab.images import centred, say_left_out
from lab.runtime import home, upload
from tasks.loaders import Source, find_made, root_of, val_share_of
from tasks.trained import Trained
from tasks.video.files import PREPROCESS, read_clips
from world import clips as drawn
from world import missing

DIRECTIONS = ("forwards", "backwards")
TESTED = 64  # clips a batch, at the most: those of 64 frames are large
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
        uses: clips that each film, or track, is used for.
    """

    classes: tuple[str, ...]
    clips: Tensor
    labels: Tensor
    names: list[str]
    uses: int = 1


# ---------------------------------------------------------------- sources


def drawn_folder(kind: str, root: Path, frames: int) -> Path:
    """Return the folder of a drawn data set."""
    return root / f"{kind}_{frames}"


def draw_missing(kind: str, root: Path, frames: int) -> None:
    """Draw a data set where there is none; errors as of `world.missing`."""
    missing.draw_missing(missing.drawn_clips(kind, frames), drawn_folder(kind, root, frames))


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


def read_tracks(root: Path, mode: str, frames: int, stride: int, val_share: float) -> Split:
    """Read photographs named TTTTT_FFFFF as clips: frames spread over each track.

    Tracks of fewer photographs are named and left out.
    """
    images = datasets.read_split(root, mode, PREPROCESS, val_share)
    folder = split_folder(root, mode) or root / mode
    if images.images is None:
        raise LabError(f"{root} holds more photographs than fit in memory")
    tracks: dict[tuple[int, str], list[int]] = {}
    for index, (path, label) in enumerate(zip(images.paths, images.labels.tolist(), strict=True)):
        tracks.setdefault((label, group_of(path)), []).append(index)
    long_enough = {key: own for key, own in tracks.items() if len(own) >= frames}
    too_short = {
        folder / images.classes[label] / name: f"{len(own)} photographs"
        for (label, name), own in tracks.items()
        if len(own) < frames
    }
    say_left_out(folder, len(tracks), too_short)
    if not long_enough:
        raise LabError(f"{folder} holds no track of {frames} photographs (TTTTT_FFFFF.jpg)")
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
    return Split(DIRECTIONS, both, labels, names, uses=2)


def list_clips(folder: Path, classes: Sequence[str]) -> list[File]:
    """Return the clips in the class folders of a split's folder, in the order of names."""
    return [
        File(path, label)
        for label, name in enumerate(classes)
        for path in sorted(clips_in(folder / name))
    ]


def hold_out(labels: Sequence[int], paths: Sequence[Path], share: float) -> np.ndarray:
    """Hold out clips, as `find_files` wants it; those that are cut from one film together."""
    return held_out_films(labels, list(map(film_of_clip, paths)), share)


def read_own(root: Path, mode: str, frames: int, stride: int, val_share: float) -> Split:
    """Read videos and folders of frames, a folder a class.

    Broken and too short ones are named and left out.

    Raises:
        LabError: no such split, too many clips for memory, or a class without any.
    """
    folder, classes, files, _ = find_files(root, mode, val_share, "clips", list_clips, hold_out)
    if not fits_in_memory(len(files), (frames, *PREPROCESS.shape)):
        raise LabError(
            f"{folder}: {len(files):,} clips of {frames} frames would take over {budget()}"
        )
    paths = [file.path for file in files]
    clips, problems = read_clips(paths, frames, stride, f"reading {folder}")
    say_left_out(folder, len(paths), problems)
    kept = [file for file in files if file.path not in problems]
    labels = [file.label for file in kept]
    for label, name in enumerate(classes):
        if mode != "val" and label not in labels:
            raise LabError(f"{folder / name} holds no clip of {frames} frames, {stride} apart")
    if not kept:
        raise LabError(f"{folder} is too small to hold clips out of it; add {root / 'val'}")
    names = [printable(file.path.relative_to(folder).as_posix()) for file in kept]
    pixels = torch.from_numpy(np.stack(clips))
    return Split(tuple(map(printable, classes)), pixels, torch.tensor(labels), names)


def drawn_source(kind: str) -> Source:
    """Return the source of a kind of clips that are drawn."""
    folder = DATA_ROOT / "clips"
    return Source(partial(read_drawn, kind), folder, partial(draw_missing, kind))


SOURCES = {kind: drawn_source(kind) for kind in drawn.KINDS} | {
    "tracks_direction": Source(read_directions, DATA_ROOT / "gtsrb26"),
    "tracks_sign": Source(read_tracks, DATA_ROOT / "gtsrb26"),
    "clips": Source(read_own, None),
}


def modes_of(dataset: str, root: Path) -> tuple[str, ...]:
    """Return the splits there are: folders may do without test/."""
    drawn_here = dataset in drawn.KINDS or split_folder(root, "test") is not None
    return MODES if drawn_here else MODES[:2]


def read_split(
    dataset: str, root: Path, mode: str, frames: int, stride: int = 1, val_share: float = VAL_SHARE
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
    return centred(pixels.permute(0, 4, 1, 2, 3))


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
        device: where the clips live and batches are made, if there is room.
    """

    def __init__(self, split: Split, augment: bool = False, device: str | torch.device = "cpu"):
        self.split, self.augment, self.classes = split, augment, split.classes
        place = home(device, split.clips.nbytes)
        self.clips, self.labels = split.clips.to(place), split.labels.to(place)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def independent(self) -> int:
        """Clips of which none says what another one is."""
        return len(self) // self.split.uses

    def frames(self, index: int) -> np.ndarray:
        """Return a clip's frames, uint8 (T, H, W, 3)."""
        return self.clips[index].cpu().numpy()

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = upload(torch.as_tensor(indices), self.labels.device)
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
    device: str | torch.device = "cpu",
    **options: int,
) -> DataLoader:
    """Return a loader of a split, as this module's docstring says.

    Args:
        batch_size: clips a batch, over all processes.
        shuffle: draw the clips in another order each epoch.
        options: seed (of the order and the augmentation), rank and world_size of `load_batches`.
    """
    return load_batches(ClipDataset(split, augment, device), batch_size, shuffle, **options)


def frames_and_stride(trained: Trained) -> tuple[int, int]:
    """Return how many frames of a clip a network has been trained on, and their stride."""
    stride = trained.state.get("flags", {}).get("stride", 1)
    return trained.state["configs"]["frames"], stride


def test_loader(trained: Trained, data_root: Path | None, batch_size: int) -> DataLoader:
    """Return the clips that a network can be tried on.

    Those of test; of a data set without it, those of val.
    """
    dataset, (frames, stride) = trained.state["dataset"], frames_and_stride(trained)
    root = find_made(SOURCES, dataset, root_of(trained, data_root), trained.runtime, frames)
    mode = modes_of(dataset, root)[-1]
    split = read_split(dataset, root, mode, frames, stride, val_share_of(trained))
    check_classes(split.classes, trained.classes, root / mode, "the network")
    return make_loader(split, min(batch_size, TESTED), device=trained.runtime.device)
