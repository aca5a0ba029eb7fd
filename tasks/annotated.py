"""Pictures that somebody has annotated, with boxes or with labels: what both kinds share.

listing, parted = find_annotated(SOURCES, "street", "annotations", root, "train", 0.1)
decoded, pictures = decode_listing(read, listing)
root, loaders = read_loaders(flags, runtime, resumed, tasks.detection.data)
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import DataLoader

from lab.console import LabError, UsageError, counted, say
from lab.decoding import decode_pictures, say_read_from_disk
from lab.downloads import download
from lab.fetching import image_path
from lab.folders import DATA_ROOT, printable
from lab.holdout import find_listing
from lab.image_folder import MODES, check_classes
from lab.images import open_image, read_image, say_left_out
from lab.runtime import Runtime
from tasks import State, TrainFlags, ViewFlags
from tasks.layouts import foreign, only_folder
from tasks.loaders import Source, find_made, make_loaders, root_of, val_share_of
from tasks.trained import Trained

WHOLE = 4  # whole pictures a batch, at the most
Shown = tuple[np.ndarray, Any, str]  # of a view: pixels, what is there, where known, and a name


@dataclass(frozen=True)
class AnnotatedSource(Source):
    """A data set that `read(folder, mode)` lists; None where there is no such split.

    Attributes:
        windows: how training windows are cut; a dataclass with `each` and `vary`.
        longest: pictures are shrunk on reading until their longer side is at most so many pixels;
            None keeps them as they are.
        sized: a network that has learned from them sees other pictures in their size; else, as they
            were taken: parts of pictures are no measure of whole ones, nor do small signs shrink.
    """

    windows: Any = None
    longest: int | None = None
    sized: bool = True

    def modes(self, root: Path) -> tuple[str, ...]:
        """Return the splits there are; without val, a share of train is held out."""
        return MODES if self.read(root, "test") is not None else MODES[:2]


# ---------------------------------------------------------------- listings


def find_annotated(
    sources: Mapping[str, Source], name: str, what: str, root: Path, mode: str, val_share: float
) -> tuple[Any, bool]:
    """Return what a source lists of a split, and True where it is parted from train.

    Args:
        name: of the data set, one of the sources.
        what: there has to be, as a user is told.

    Raises:
        LabError: no such folder, or nothing of this split in it.
    """
    if not root.is_dir():
        raise LabError(f"no data folder {root}; --data_root takes that of --dataset {name}")
    listing, parted = find_listing(sources[name].read, root, mode, val_share)
    if listing is None:
        text = f"{root} holds no {what} of {mode} as --dataset {name} has them"
        raise LabError(text + layout_hint(sources, name, root))
    if parted and mode == "val":
        count = len(listing.pictures)
        say(f"{root} has no val: {count:,} pictures of train are held out (--val_share)")
    return listing, parted


def decode_listing(
    read: Callable[[Any], tuple[np.ndarray, Any]], listing: Any
) -> tuple[list[tuple[Any, Any]], list[np.ndarray] | None]:
    """Decode the pictures of a listing; those that cannot be used are named and left out.

    Args:
        read: from a picture to its pixels and what is known of it; an OSError says why not.
        listing: with `source`, the file or folder that it is from, and `pictures`, which have a
            `path`.

    Returns:
        The others, each with what is known of it; their pixels, or None where all of them would
        not fit in memory, which is said.
    """
    source = listing.source
    decoded, pixels, problems = decode_pictures(read, listing.pictures, f"reading {source}")
    folder = source if source.is_dir() else source.parent
    say_left_out(folder, len(listing.pictures), {each.path: why for each, why in problems})
    if pixels is None:
        say_read_from_disk(folder, len(decoded), "pictures")
    return decoded, pixels


def as_annotated(
    image: Image.Image, path: Path, size: tuple[int, int] | None
) -> tuple[Image.Image, bool]:
    """Return a picture, read upright; or, where only that fits, as it is stored, and True.

    Tools that know nothing of EXIF annotate a telephone's picture as it is stored.

    Args:
        path: of its file.
        size: (height, width) that the annotation is of; None if it does not say.
    """
    if size is None or size == (image.height, image.width):
        return image, False
    stored = open_image(path, upright=False)
    turned = size == (stored.height, stored.width)
    return (stored if turned else image), turned


def say_as_stored(source: Path, paths: Collection[Path], what: str) -> None:
    """Say how many pictures are not turned as their EXIF says, since their annotations are not."""
    if paths:
        count, name = counted(len(paths), "pictures"), printable(min(paths).name)
        say(
            f"{source}: {count} ({name}) used as stored, not turned as EXIF says, since the {what} "
            "are of that size"
        )


def layout_hint(sources: Mapping[str, Source], name: str, root: Path) -> str:
    """Return what a folder holds instead, as the end of a line: another layout or format."""

    def fits(other: str, folder: Path) -> bool:
        try:
            return any(sources[other].read(folder, mode) is not None for mode in MODES)
        except LabError:  # what has a fault of its own is no hint
            return False

    if fits(name, root):  # it lacks one of its splits
        return ""
    for folder in dict.fromkeys((root, only_folder(root))):
        where = "it" if folder == root else f"--data_root {folder}"
        for other in reversed(sources):  # the particular ones last
            if fits(other, folder):
                return f"; {where} is laid out as --dataset {other}"
    return foreign(root)


def download_missing_voc(name: str, root: Path) -> None:
    """Have torchvision download VOC 2012 into the project's own folder, unless it is there.

    Args:
        name: of its class.
    """
    if root.resolve() == DATA_ROOT.resolve():
        download(name, "VOCdevkit", "street", root)


# ---------------------------------------------------------------- loaders


def read_loaders(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, data: ModuleType, **cut: Any
) -> tuple[Path, dict[str, DataLoader], int | None]:
    """Read the data set that flags name.

    Args:
        data: the task's module, with `SOURCES`, `read_split`, `make_loader` and `absent_classes`.
        cut: of windows, what differs from the source's own.

    Returns:
        Its folder, loaders by mode, and the size that a network learns to see pictures in, as
        `shrink` takes it: every script shows it no larger ones.

    Raises:
        LabError: no such data, too few pictures, or other classes than those of `resumed`.
    """
    dataset, settings = flags.own.dataset, flags.settings
    source = data.SOURCES[dataset]
    root = find_made(data.SOURCES, dataset, flags.data_root, runtime)
    windows, known = replace(source.windows, vary=settings.augment, **cut), [None]
    longest = (resumed or {}).get("longest")

    def read(mode: str) -> Any:
        split = data.read_split(dataset, root, mode, *known, settings.val_share, longest)
        known[:] = [split.classes]
        return split

    def make(split: Any, batch_size: int, training: bool, **options: Any) -> DataLoader:
        cut = windows if training else None
        return data.make_loader(split, batch_size, cut, settings.num_workers, **options)

    tested = WHOLE * runtime.world_size
    loaders = make_loaders(source.modes(root), read, make, settings, runtime, tested)
    say_unusual(loaders, data, root)
    if resumed is not None:
        check_classes(*known, resumed["class_names"], root, flags.resume)
    sizes = loaders["train"].dataset.split.sizes
    return root, loaders, max(map(max, sizes)) if source.sized else None


def say_unusual(loaders: Mapping[str, DataLoader], data: ModuleType, root: Path) -> None:
    """Say which classes train shows nothing of, and whether pictures are in several splits."""
    split = loaders["train"].dataset.split
    if absent := data.absent_classes(split):
        names = ", ".join(absent[:5]) + f" and {len(absent) - 5:,} more" * (len(absent) > 5)
        say(f"{root}: train has no {data.SHOWN} of {names}: nothing is learned of that")
    for mode in loaders.keys() - {"train"}:
        both = {*split.paths} & {*loaders[mode].dataset.split.paths}
        if both:
            text = f"{len(both):,} pictures of {mode} are in train as well"
            say(f"{root}: {text}: what is measured on them says nothing of others")


def load_test(
    trained: Trained, data_root: Path | None, batch_size: int, dataset: str | None = None
) -> DataLoader:
    """Return the whole pictures that a network can be tried on.

    Those of test; of a data set without it, those of val.

    Args:
        data_root: the data set's folder; None for the one that the network was trained on.
        dataset: its name; None for that of the training.
    """
    data, dataset = trained.task.room("data"), dataset or trained.state["dataset"]
    root = find_made(data.SOURCES, dataset, root_of(trained, data_root), trained.runtime)
    mode = data.SOURCES[dataset].modes(root)[-1]
    known = trained.classes, val_share_of(trained), seen_size(trained)
    split = data.read_split(dataset, root, mode, *known)
    say(f"Testing on {len(split.paths):,} pictures of {root}, {mode}")
    return data.make_loader(split, min(batch_size, WHOLE), device=trained.runtime.device)


# ---------------------------------------------------------------- pixels


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


def seen_size(trained: Trained, otherwise: int | None = None) -> int | None:
    """Return the size that a network was trained for, as `shrink` takes it.

    Args:
        otherwise: that size where the checkpoint, of an earlier version, does not say it.
    """
    return trained.state.get("longest", otherwise)


# ---------------------------------------------------------------- pictures that a view shows


def chosen_pictures(
    flags: ViewFlags, trained: Trained, most: int = 4, otherwise: int | None = None
) -> list[Shown]:
    """Return the picture that `--image` or `--image_idx` names; else some of the test split.

    Args:
        most: pictures, at the most.
        otherwise: as of `seen_size`.
    """
    if flags.image is not None:
        picture, name = own_picture(flags, seen_size(trained, otherwise))
        return [(picture, None, name)]
    dataset = trained.task.test_loader(trained, flags.data_root, 1).dataset
    chosen = choose_shown(flags, list(map(dataset.shows, range(len(dataset)))), most)
    return [(dataset.picture(k), dataset.truth(k), dataset.split.paths[k].name) for k in chosen]


def choose_shown(flags: ViewFlags, shows: Sequence[int], most: int) -> list[int]:
    """Return the picture that `--image_idx` names; else some of all over the split.

    Of equal parts of it the one that shows the most: of a film, neighbours show the same.

    Args:
        shows: how much each picture does.
        most: pictures, at the most.
    """
    count = len(shows)
    if flags.image_idx is None:
        bounds = np.linspace(0, count, min(most, count) + 1).astype(int).tolist()
        return [max(range(*ends), key=shows.__getitem__) for ends in pairwise(bounds)]
    if not 0 <= flags.image_idx < count:
        raise UsageError(f"--image_idx {flags.image_idx}: the pictures are 0 to {count - 1}")
    return [flags.image_idx]


def own_picture(flags: ViewFlags, longest: int | None = None) -> tuple[np.ndarray, str]:
    """Return pixels, as of `shrink`, and name of the picture that `--image` names."""
    path = image_path(flags.image, flags.save_dir / "images")
    return shrink(read_image(path), longest), path.name
