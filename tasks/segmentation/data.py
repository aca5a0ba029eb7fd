"""Pictures with labels: every source by name, and the one way from a folder of them to a loader.

    source = SOURCES["street"]
    splits = {mode: read_split("street", root, mode) for mode in source.modes(root)}
    train = make_loader(splits["train"], 16, source.windows, seed=0)
    val = make_loader(splits["val"], 4)

A loader yields images, float32 (N, 3, H, W) in [-1, 1], and labels, int64 (N, H, W): classes from 0
to C - 1 of loader.dataset.classes, and IGNORED. Training images are windows cut out of the pictures
(`windows`), of one size. Those of val and test are whole pictures, in order; where pictures of a
batch differ in size, the smaller ones have zeros at their right and bottom, and labels to be
ignored. `loader.batch_sampler` is a lab.batches.BatchSampler, as `engine.fit` needs for an exact
resume. Pictures are decoded once, into uint8 arrays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

import tasks.segmentation.annotations as readers
from lab.console import LabError, say
from lab.folders import DATA_ROOT, printable
from lab.image_folder import MODES, check_classes
from lab.images import open_image
from lab.runtime import upload
from lab.settings import TrainSettings
from tasks.annotated import (
    AnnotatedSource,
    as_annotated,
    decode_listing,
    download_missing_voc,
    find_annotated,
    load_test,
    say_as_stored,
    shrink,
    shrunk,
)
from tasks.segmentation.annotations import CLASSES_FILE, LabelledPicture, Listing
from tasks.segmentation.labels import BLACK_AND_WHITE, IGNORED, read_label
from tasks.segmentation.windows import DRAWS, Windows, choose_window, cut_window, vary_camera
from tasks.trained import Trained
from tasks.windows import WindowDataset
from world.missing import DRAWN, draw_missing

SHOWN = "pixel"  # what a split has of its classes
draw_street = partial(draw_missing, DRAWN["street"])
download_voc = partial(download_missing_voc, "VOCSegmentation")
# A drawn picture is a part of a frame 640 to 1,408 pixels wide. What is learned from it is wanted
# in photographs of a whole street, 480 pixels wide: a window is then just full, or not quite.
STREET_WINDOWS, CAMVID_WINDOWS = Windows(zoom=(0.48, 1.05)), Windows(zoom=(0.6, 1.8), each=4)
SOURCES = {
    "street": AnnotatedSource(
        readers.read_street, DATA_ROOT / "street", draw_street, STREET_WINDOWS
    ),
    "camvid": AnnotatedSource(readers.read_camvid, DATA_ROOT / "camvid", None, CAMVID_WINDOWS),
    "voc": AnnotatedSource(readers.read_voc, DATA_ROOT, download_voc, Windows()),
    "folder": AnnotatedSource(readers.read_folder, None, None, Windows(), 1024),
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
        pictures: uint8 (H, W, 3) each; None where they would not fit in memory.
        labels: uint8 (H, W) of each: a third of the pictures' bytes, always in memory.
        longest: see `AnnotatedSource`.
        as_stored: pictures that are not turned as their EXIF says, since their labels are not.
    """

    classes: tuple[str, ...]
    paths: list[Path]
    pictures: list[np.ndarray] | None
    labels: list[np.ndarray]
    longest: int | None = None
    as_stored: frozenset[Path] = frozenset()

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of each picture."""
        return [labels.shape for labels in self.labels]


def read_split(
    dataset: str,
    root: Path,
    mode: str,
    classes: Sequence[str] | None = None,
    val_share: float = TrainSettings.val_share,
    longest: int | None = None,
) -> Split:
    """Read a split of a data set; pictures that cannot be used are named and left out.

    Those are pictures and label images that cannot be read or differ in size.

    Args:
        classes: those that a network knows; None for the data set's.
        val_share: of train, held out as val where there is no val.
        longest: the size that a network knows; None for the data set's (`AnnotatedSource`).

    Raises:
        LabError: no such split, a label that is no class, or nothing left that is labelled.
    """
    source = SOURCES[dataset]
    listing, _ = find_annotated(SOURCES, dataset, "labels", root, mode, val_share)
    if classes is None:
        classes = listing.classes
    elif listing.classes is not None:
        check_classes(listing.classes, classes, root, "what is to be labelled")
    return load_split(listing, classes and tuple(classes), longest or source.longest)


def load_split(listing: Listing, classes: tuple[str, ...] | None, longest: int | None) -> Split:
    """Decode the pictures and labels of a listing; errors as in `read_split`."""
    count, as_stored = IGNORED if classes is None else len(classes), set()

    def read(pair: LabelledPicture) -> tuple[np.ndarray, np.ndarray]:
        if pair.label is None:
            raise OSError("no label image of its name beside it")
        if pair.label.suffix.lower() in (".jpg", ".jpeg"):
            raise OSError(f"{pair.label.name} blurs its numbers; save labels as PNG")
        try:
            image = open_image(pair.path)
            labels = read_label(pair.label, count, listing.ignored, listing.colours)
            image, stored = as_annotated(image, pair.path, labels.shape)
        except LabError as error:
            if listing.classes is None and classes is not None:  # counted in train
                raise LabError(f"{error}; name all of them in {CLASSES_FILE}") from error
            raise
        except FileNotFoundError as error:
            raise OSError(f"no {printable(Path(error.filename).name)}") from error
        if stored:
            as_stored.add(pair.path)
        picture = shrink(image, longest)
        if longest is not None:
            labels = shrink_labels(labels, longest)
        if labels.shape != picture.shape[:2]:
            (tall, wide), (height, width) = labels.shape, picture.shape[:2]
            raise OSError(f"is {width}x{height}, but its labels are {wide}x{tall}")
        return picture, labels

    decoded, pictures = decode_listing(read, listing)
    say_as_stored(listing.source, as_stored, "labels")
    paths, labels = [pair.path for pair, _ in decoded], [labels for _, labels in decoded]
    present = np.flatnonzero(count_labels(labels)).tolist()
    masks = present == [0, IGNORED] and (classes is None or len(classes) == 2)
    if masks or classes == BLACK_AND_WHITE:
        classes = classes or BLACK_AND_WHITE
        say(f"{listing.source}: masks of 0 and 255 alone are read as {' and '.join(classes)}")
        labels = [np.where(each == IGNORED, 1, each) for each in labels]
    elif not set(present) - {IGNORED}:
        raise LabError(f"{listing.source} leaves nothing to learn: no pixel of it is labelled")
    elif classes is None:
        numbers = set(present) - {IGNORED}
        classes = tuple(str(number) for number in range(max(numbers) + 1))
        if missing := len(classes) - len(numbers):
            say(
                f"{listing.source}: {len(classes)} classes by their numbers, {missing} of them "
                f"nowhere; {CLASSES_FILE} can name the others, each with its grey as colour"
            )
    names = tuple(map(printable, classes))
    return Split(names, paths, pictures, labels, longest, frozenset(as_stored))


def count_labels(labels: Sequence[np.ndarray]) -> np.ndarray:
    """Return how many pixels have each label, (256,)."""
    counts = np.zeros(IGNORED + 1, np.int64)
    for each in labels:
        counts += np.bincount(each.ravel(), minlength=IGNORED + 1)
    return counts


def shrink_labels(labels: np.ndarray, longest: int) -> np.ndarray:
    """Return labels (H, W) as `shrink` does a picture, without any in between."""
    size = shrunk(labels.shape, longest)
    if size == labels.shape:
        return labels
    return np.array(Image.fromarray(labels).resize(size[::-1], Image.Resampling.NEAREST))


def class_shares(split: Split) -> np.ndarray:
    """Return the share of each class in the labelled pixels of a split, (C,)."""
    # Every fourth pixel of every fourth row says as much as all.
    known = count_labels([labels[::4, ::4] for labels in split.labels])[: len(split.classes)]
    return known / max(1, known.sum())


def absent_classes(split: Split) -> list[str]:
    """Return the classes of which a split has no pixel."""
    rare = np.flatnonzero(class_shares(split) == 0)
    absent = [label for label in rare if not any((each == label).any() for each in split.labels)]
    return [split.classes[label] for label in absent]


# ---------------------------------------------------------------- the loader


class SegmentationDataset(WindowDataset):
    """Pictures with the class of every pixel."""

    def __init__(
        self, split: Split, windows: Windows | None = None, device: str | torch.device = "cpu"
    ):
        super().__init__(split, windows, device)
        self._held_labels = None if self._held is None else self.hold(split.labels)

    def windows_in(self, epoch: int) -> Windows:
        windows = self.windows
        return windows.halved() if windows.vary and epoch <= windows.coarse else windows

    def cut_windows(
        self, indices: Sequence[int], windows: Windows, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        own = {"dtype": torch.uint8, "device": self.cut_on}
        pixels = torch.empty(len(indices), 3, *windows.size, **own)
        labels = torch.empty(len(indices), *windows.size, **own)
        draws = torch.rand(len(indices), DRAWS, generator=generator).tolist()
        for k, (index, drawn) in enumerate(zip(indices, draws, strict=True)):
            known = self.labels(index)
            chosen = choose_window(known.shape, windows, drawn)
            pixels[k], labels[k] = cut_window(self.pixels(index), known, chosen, windows.size)
        return pixels, upload(labels, self.device).long()

    def labels(self, index: int) -> Tensor:
        """Return a picture's labels, uint8 (H, W), where its `pixels` are."""
        held = self._held_labels
        return torch.from_numpy(self.split.labels[index]) if held is None else held[index]

    def vary(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return vary_camera(images, generator)

    def whole(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images = self.whole_images(indices)
        labels = torch.full((len(images), *images.shape[2:]), IGNORED, device=self.device)
        for marked, index in zip(labels, indices, strict=True):
            known = upload(torch.from_numpy(self.split.labels[index]), self.device)
            marked[: known.shape[0], : known.shape[1]] = known
        return images, labels

    def truth(self, index: int) -> np.ndarray:
        return self.split.labels[index]

    def shows(self, index: int) -> int:
        return len(np.unique(self.split.labels[index]))


make_loader = SegmentationDataset.loader


def test_loader(trained: Trained, data_root: Path | None, batch_size: int) -> DataLoader:
    """Return the whole pictures that a network can be tried on, as `load_test` does.

    A folder that is given may be laid out as any data set: a network of the drawn street is tested
    on CamVid's photographs.
    """
    dataset = trained.state["dataset"]
    if data_root is not None:
        dataset = recognised(dataset, data_root)
    return load_test(trained, data_root, batch_size, dataset)
