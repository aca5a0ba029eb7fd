"""Pictures with labels: every source by name, and the one way from a folder of them to a loader.

    source = SOURCES["street"]
    root = datasets.find_folder(SOURCES, "street", None)      # data/street
    splits = {mode: read_split("street", root, mode) for mode in source.modes(root)}
    train = make_loader(splits["train"], 16, source.windows, seed=0)
    val = make_loader(splits["val"], 4)

A loader yields images, float32 (N, 3, H, W) in [-1, 1], and labels, int64 (N, H, W): classes from 0
to C - 1 of loader.dataset.classes, and IGNORED. Training images are windows cut out of the pictures
(`augment`), of one size. Those of val and test are whole pictures, in order; where pictures of a
batch differ in size, the smaller ones have zeros at their right and bottom, and labels to be
ignored. `loader.batch_sampler` is a lab.batches.BatchSampler, as `engine.fit` needs for an exact
resume. Pictures are decoded once, into uint8 arrays.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets import (
    CACHE_BUDGET,
    MODES,
    VAL_SHARE,
    check_classes,
    download,
    draw_missing_street,
)
from lab.console import LabError, progress, say
from lab.folders import DATA_ROOT, printable
from lab.images import open_image, say_left_out
from tasks.segmentation.augment import DRAWS, Windows, choose_window, cut_both, vary_camera
from tasks.segmentation.labels import IGNORED, read_label
from tasks.segmentation.listings import (
    Listing,
    Pair,
    read_camvid,
    read_folder,
    read_street,
    read_voc,
)
from tasks.windows import Source, WindowDataset, find_annotated, shrink, shrunk

# ---------------------------------------------------------------- data sets by name


def download_missing_voc(root: Path) -> None:
    """Have torchvision download VOC 2012 into the project's own folder, unless it is there."""
    if root.resolve() == DATA_ROOT.resolve():
        download("VOCSegmentation", "VOCdevkit", "street", root)


SOURCES = {
    # A drawn picture is a part of a frame 640 to 1,408 pixels wide. What is learned from it is
    # wanted at its own size, and in photographs of half of it: a window is then just full.
    "street": Source(
        read_street, DATA_ROOT / "street", Windows(zoom=(0.52, 1.4)), prepare=draw_missing_street
    ),
    "camvid": Source(read_camvid, DATA_ROOT / "camvid", Windows(zoom=(0.6, 1.8), each=4)),
    "voc": Source(read_voc, DATA_ROOT, Windows(), prepare=download_missing_voc),
    "folder": Source(read_folder, None, Windows(), 1024),
}


def recognised(dataset: str, root: Path) -> str:
    """Return the data set that a folder is laid out as: the one named, if it can be, or another."""
    layouts = (dataset, *SOURCES)
    fitting = (n for n in layouts if any(SOURCES[n].read(root, mode) is not None for mode in MODES))
    return next(fitting, dataset)


# ---------------------------------------------------------------- splits


@dataclass(frozen=True)
class Split:
    """Pictures of one split with their labels, as read.

    Attributes:
        classes: names; a label is an index into them, or IGNORED.
        paths: of the N pictures.
        pictures: uint8 (H, W, 3) each; None where they would not fit `CACHE_BUDGET`.
        labels: uint8 (H, W) of each: a third of the pictures' bytes, always in memory.
        longest: see `Source`.
    """

    classes: tuple[str, ...]
    paths: list[Path]
    pictures: list[np.ndarray] | None
    labels: list[np.ndarray]
    longest: int | None = None


def read_split(
    dataset: str,
    root: Path,
    mode: str,
    classes: Sequence[str] | None = None,
    val_share: float = VAL_SHARE,
) -> Split:
    """Read a split of a data set; pictures that cannot be used are named and left out.

    Those are pictures and label images that cannot be read or differ in size.

    Args:
        classes: those that a network knows; None for the data set's.
        val_share: of train, held out as val where there is no val.

    Raises:
        LabError: no such split, a label that is no class, or nothing left that is labelled.
    """
    source = SOURCES[dataset]
    listing, _ = find_annotated(source, dataset, "labels", root, mode, val_share)
    if classes is None:
        classes = listing.classes
    elif listing.classes is not None:
        check_classes(listing.classes, classes, root, "what is to be labelled")
    return load_split(listing, classes and tuple(classes), source.longest)


def load_split(listing: Listing, classes: tuple[str, ...] | None, longest: int | None) -> Split:
    """Decode the pictures and labels of a listing; errors as in `read_split`."""
    count = IGNORED if classes is None else len(classes)

    def read(pair: Pair) -> tuple[np.ndarray, np.ndarray] | str:
        try:
            picture = shrink(open_image(pair.picture), longest)
            labels = read_label(pair.label, count, listing.ignored, listing.colours)
        except FileNotFoundError as error:
            return f"no {printable(Path(error.filename).name)}"
        except OSError as error:
            return error.strerror or str(error)
        if longest is not None:
            labels = shrink_labels(labels, longest)
        if labels.shape != picture.shape[:2]:
            (tall, wide), (height, width) = labels.shape, picture.shape[:2]
            return f"is {width}x{height}, but its labels are {wide}x{tall}"
        return picture, labels

    paths, pictures, labels, problems, room = [], [], [], {}, CACHE_BUDGET
    # Threads suffice: Pillow decodes outside the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        results = zip(listing.pictures, pool.map(read, listing.pictures), strict=True)
        label = f"reading {listing.source}"
        for pair, result in progress(results, total=len(listing.pictures), label=label):
            if isinstance(result, str):
                problems[pair.picture] = result
                continue
            room -= result[0].nbytes
            if room < 0:
                pictures = None
            if pictures is not None:
                pictures.append(result[0])
            paths.append(pair.picture)
            labels.append(result[1])
    folder = listing.source if listing.source.is_dir() else listing.source.parent
    say_left_out(folder, len(listing.pictures), problems)
    if all((each == IGNORED).all() for each in labels):
        raise LabError(f"{listing.source} leaves nothing to learn: no pixel of it is labelled")
    if pictures is None:
        say(
            f"{folder}: {len(paths):,} pictures would take more than {CACHE_BUDGET / 2**30:.1f} GiB"
            " of memory, so they are read from disk batch by batch (see --num_workers)"
        )
    if classes is None:
        highest = max(int(each[each != IGNORED].max(initial=0)) for each in labels)
        classes = tuple(str(number) for number in range(highest + 1))
    return Split(tuple(map(printable, classes)), paths, pictures, labels, longest)


def shrink_labels(labels: np.ndarray, longest: int) -> np.ndarray:
    """Return labels (H, W) as `shrink` does a picture, without any in between."""
    size = shrunk(labels.shape, longest)
    if size == labels.shape:
        return labels
    return np.array(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def class_shares(split: Split) -> np.ndarray:
    """Return the share of each class in the labelled pixels of a split, (C,)."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for labels in split.labels:  # every fourth pixel of every fourth row says as much as all
        counts += np.bincount(labels[::4, ::4].ravel(), minlength=IGNORED + 1)
    known = counts[: len(split.classes)]
    return known / max(1, known.sum())


# ---------------------------------------------------------------- the loader


class SegmentationDataset(WindowDataset):
    """Pictures with the class of every pixel."""

    def windows_in(self, epoch: int) -> Windows:
        windows = self.windows
        return windows.halved() if windows.vary and epoch <= windows.coarse else windows

    def cut_windows(
        self, indices: Sequence[int], windows: Windows, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        size = windows.size
        pixels = torch.empty(len(indices), 3, *size, dtype=torch.uint8)
        labels = torch.empty(len(indices), *size, dtype=torch.uint8)
        draws = torch.rand(len(indices), DRAWS, generator=generator).tolist()
        for k, (index, own) in enumerate(zip(indices, draws, strict=True)):
            known = self.split.labels[index]
            chosen = choose_window(known.shape, windows, own)
            pixels[k], labels[k] = cut_both(self.picture(index), known, chosen, size)
        return pixels, labels.to(self.device).long()

    def vary(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return vary_camera(images, generator)

    def whole(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images = self.whole_images(indices)
        labels = torch.full((len(images), *images.shape[2:]), IGNORED, device=self.device)
        for marked, index in zip(labels, indices, strict=True):
            known = torch.from_numpy(self.split.labels[index]).to(self.device)
            marked[: known.shape[0], : known.shape[1]] = known
        return images, labels


make_loader = SegmentationDataset.loader
