"""What detection and segmentation share: pictures that training sees windows of, tests whole.

class Dataset(WindowDataset):
    def cut_windows(self, indices, windows, generator): ...  # uint8 (N, 3, H, W), what is in them
    def vary(self, images, generator): ...                   # what differs from camera to camera
    def whole(self, indices): ...                            # images, and what is in them

classes, loaders = read_loaders(args, runtime, resumed, source, modes, read, make_loader)
"""

import math
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets import MODES, check_classes, find_listing
from lab.batches import check_count, load_batches
from lab.console import LabError, UsageError, say
from lab.images import image_path, open_image
from lab.runtime import Runtime, check_batch_size

WHOLE = 4  # whole pictures a batch, at the most


@dataclass(frozen=True)
class Source:
    """A data set that the scripts know by name.

    Attributes:
        read: (folder, mode) to what is annotated there; None where there is no such split.
        folder: where it is looked for unless told otherwise; None where it has to be told.
        windows: how training windows are cut; a dataclass with `each` and `vary`.
        longest: pictures are shrunk on reading until their longer side is at most so many pixels;
            None keeps them as they are.
        prepare: makes what is missing in a folder; None where nothing can be made.
    """

    read: Callable[[Path, str], Any]
    folder: Path | None
    windows: Any
    longest: int | None = None
    prepare: Callable[[Path], None] | None = None

    def modes(self, root: Path) -> tuple[str, ...]:
        """Return the splits there are; without val, a share of train is held out."""
        return MODES if self.read(root, "test") is not None else MODES[:2]


def find_annotated(
    source: Source, name: str, what: str, root: Path, mode: str, val_share: float
) -> tuple[Any, bool]:
    """Return what `source.read` finds of a split, and True where it is parted from train.

    Args:
        name: of the data set.
        what: there has to be, as a user is told.

    Raises:
        LabError: no such folder, or nothing of this split in it.
    """
    if not root.is_dir():
        raise LabError(f"no data folder {root}; --data_root takes that of --dataset {name}")
    listing, parted = find_listing(source.read, root, mode, val_share)
    if listing is None:
        raise LabError(f"{root} holds no {what} of {mode} as --dataset {name} has them")
    if parted and mode == "val":
        count = len(listing.pictures)
        say(f"{root} has no val: {count:,} pictures of train are held out (--val_share)")
    return listing, parted


def shrunk(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """Return (height, width) whose longer side is at most `longest` pixels."""
    scale = min(1.0, (longest or math.inf) / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(image: Image.Image, longest: int | None) -> np.ndarray:
    """Return a picture's pixels, (H, W, 3) uint8, its longer side at most `longest` pixels."""
    image = image.convert("RGB")
    size = shrunk((image.height, image.width), longest)
    if size != (image.height, image.width):
        image = image.resize(size[::-1], Image.Resampling.BILINEAR)
    return np.array(image)


class WindowDataset(Dataset):
    """Pictures of one split; asked for a batch at a time (`__getitems__`).

    Args:
        split: with `classes`, `paths`, `longest`, and `pictures`, uint8 (H, W, 3) each, or None
            where they are read from disk.
        windows: cut training windows so; None for whole pictures.
        device: where batches are made.
    """

    def __init__(self, split: Any, windows: Any = None, device: str | torch.device = "cpu"):
        self.split, self.windows, self.device = split, windows, device
        self.classes = split.classes

    @classmethod
    def loader(
        cls,
        split: Any,
        batch_size: int,
        windows: Any = None,
        num_workers: int = 0,
        *,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        device: str | torch.device = "cpu",
    ) -> DataLoader:
        """Return a loader of a split.

        Args:
            split, windows: as above; windows are shuffled, whole pictures come in order.
            batch_size: images a batch, over all processes.
            num_workers: processes that make batches; 0 for this one.
            seed: of the order, the windows and how they are varied.
            rank, world_size: this process's share of each batch is every `world_size`-th image.
            device: where batches are made; with workers, the CPU.
        """
        dataset = cls(split, windows, "cpu" if num_workers else device)
        own = {"seed": seed, "rank": rank, "world_size": world_size}
        return load_batches(dataset, batch_size, windows is not None, num_workers, **own)

    def __len__(self) -> int:
        return len(self.split.paths) * (self.windows.each if self.windows else 1)

    def picture(self, index: int) -> np.ndarray:
        """Return a whole picture, uint8 (H, W, 3)."""
        if self.split.pictures is not None:
            return self.split.pictures[index]
        return shrink(open_image(self.split.paths[index]), self.split.longest)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Any]:
        if self.windows is None:
            return self.whole(indices)
        generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
        windows = self.windows_in(getattr(indices, "epoch", 1))
        own = [k // self.windows.each for k in indices]
        pixels, targets = self.cut_windows(own, windows, generator)
        images = pixels.to(self.device).float().div_(127.5).sub_(1)
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
            pixels = torch.from_numpy(picture).to(self.device).permute(2, 0, 1)
            image[:, : picture.shape[0], : picture.shape[1]] = pixels.float().div_(127.5).sub_(1)
        return images

    def whole(self, indices: Sequence[int]) -> tuple[Tensor, Any]:
        """Return `whole_images` and what is in them."""
        raise NotImplementedError

    def windows_in(self, epoch: int) -> Any:
        """Return how windows are cut in an epoch, from 1."""
        return self.windows

    def cut_windows(
        self, indices: Sequence[int], windows: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Return a window of each picture, uint8 (N, 3, H, W), and what is in it."""
        raise NotImplementedError

    def vary(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Vary light, colours and so on of windows (N, 3, H, W) in [-1, 1]."""
        raise NotImplementedError


def choose_shown(args: Namespace, shows: Sequence[int], most: int) -> list[int]:
    """Return the picture that `--image_idx` names; else some of all over the split.

    Of equal parts of it the one that shows the most: of a film, neighbours show the same.

    Args:
        shows: how much each picture does.
        most: pictures, at the most.
    """
    count = len(shows)
    if args.image_idx is None:
        bounds = np.linspace(0, count, min(most, count) + 1).astype(int).tolist()
        return [max(range(*part), key=shows.__getitem__) for part in pairwise(bounds)]
    if not 0 <= args.image_idx < count:
        raise UsageError(f"--image_idx {args.image_idx}: the pictures are 0 to {count - 1}")
    return [args.image_idx]


def own_picture(args: Namespace, longest: int | None = None) -> tuple[np.ndarray, str]:
    """Return pixels, as of `shrink`, and name of the picture that `--image` names."""
    path = image_path(args.image, args.save_dir / "images")
    try:
        return shrink(open_image(path), longest), path.name
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from error


def read_loaders(
    args: Namespace,
    runtime: Runtime,
    resumed: dict[str, Any] | None,
    source: Source,
    read_split: Callable[..., Any],
    make_loader: Callable[..., DataLoader],
) -> tuple[tuple[str, ...], dict[str, DataLoader]]:
    """Read the data set that flags ask for, in `args.data_root`; return classes and loaders.

    Args:
        read_split, make_loader: the field's own.

    Raises:
        LabError: no such data, too few pictures, or other classes than those of `resumed`.
    """
    check_batch_size(args.batch_size, runtime, normalises=True)
    if runtime.rank == 0 and source.prepare is not None:
        source.prepare(args.data_root)
    runtime.wait_for_all()

    windows = replace(source.windows, vary=args.augment)
    own = {"num_workers": args.num_workers, "seed": args.seed, "rank": runtime.rank,
           "world_size": runtime.world_size, "device": runtime.device}  # fmt: skip
    classes, loaders = None, {}
    for mode in source.modes(args.data_root):
        split = read_split(args.dataset, args.data_root, mode, classes, args.val_share)
        classes = classes or split.classes
        if mode == "train":
            loaders[mode] = make_loader(split, args.batch_size, windows, **own)
        else:
            loaders[mode] = make_loader(split, WHOLE * runtime.world_size, **own)
    check_count(len(loaders["train"].dataset), runtime.world_size, normalises=True)
    if resumed is not None:
        check_classes(classes, resumed["class_names"], args.data_root, args.resume)
    return classes, loaders


def choose_configs(
    args: Namespace,
    new: dict[str, Any],
    resumed: dict[str, Any] | None,
    weights: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the configs of the network to build: the resumed one's, else new ones.

    Those of `weights` hold where they are of the same network, but for the number of classes.

    Raises:
        LabError: another network is asked for than the resumed one.
    """
    if resumed is not None:
        if args.network != resumed["network"]:
            raise LabError(f"{args.resume} holds {resumed['network']}: leave out --network")
        return resumed["configs"]
    if weights is not None and weights.get("network") == args.network:
        return weights["configs"] | {"num_classes": new["num_classes"]}
    return new


def refuse_other_weights(args: Namespace, resumed: dict[str, Any] | None) -> None:
    """Raise a UsageError if a run that is gone on with is to start from something else."""
    if resumed is not None and (args.pretrained or args.weights):
        raise UsageError("--resume has its own weights: leave out --pretrained and --weights")
