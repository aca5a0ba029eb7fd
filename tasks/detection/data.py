"""Pictures with boxes: every source by name, and the one way from a folder of them to a loader.

    source = SOURCES["street"]
    root = tasks.loaders.find_folder(SOURCES, "street", None)     # data/street
    source.prepare(root)                              # where not None: in one process alone
    splits = {mode: read_split("street", root, mode) for mode in source.modes(root)}
    train = make_loader(splits["train"], 32, source.windows, seed=0)
    val = make_loader(splits["val"], 4)

A loader yields images, float32 (N, 3, H, W) in [-1, 1], and targets, a list of N dicts:

    boxes    float32 (n, 4): left, top, right, bottom in pixels of the image, width and height > 0
    labels   int64 (n,): 0 to C - 1, of loader.dataset.classes; the background has none
    ignored  bool (n,): nobody can be asked to find it, and who finds it makes no mistake

Training images are windows cut out of the pictures (`windows`), of one size. Those of val and test
are whole pictures, in order; where pictures of a batch differ in size, the smaller ones have zeros
at their right and bottom, as a convolution sees beyond a border. `loader.batch_sampler` is a
lab.batches.BatchSampler, as `engine.fit` needs for an exact resume. Pictures are decoded once, into
uint8 arrays.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import tasks.detection.annotations as readers
from datasets import VAL_SHARE
from lab.augmentation import cut
from lab.console import LabError, counted, say
from lab.folders import DATA_ROOT, printable
from lab.images import open_image
from lab.runtime import upload
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
from tasks.detection.annotations import Annotated, Box, Listing
from tasks.detection.coco import read_coco, read_signs
from tasks.detection.detector import Target
from tasks.detection.windows import DRAWS, Windows, choose_window, move_boxes, vary_windows
from tasks.detection.yolo import read_yolo
from tasks.windows import WindowDataset
from world.missing import DRAWN, draw_missing

SHOWN = "box"  # what a split has of its classes
SEEN_SHARE = 0.5  # of a box's area: if less is inside a window, it is ignored there
MOST_SHARE = 1.5  # of a picture's size: a box that reaches further is in another unit
SMALLEST = 8.0  # pixels: a box whose longer side is shorter in a window is ignored there


# Objects of general data sets fill their pictures: shrunk, they fit into a window.
GENERAL_WINDOWS = Windows(zoom=(0.75, 1.33), stretch=0.05)
SIGN_WINDOWS = Windows(size=192, around=0.8)  # signs are small, and few
# A drawn picture is a part, half as wide on the average, of a frame of 1,024 pixels.
STREET_WINDOWS = replace(SIGN_WINDOWS, zoom=(0.7, 2.0))
draw_street = partial(draw_missing, DRAWN["street"])
download_voc = partial(download_missing_voc, "VOCDetection")
BANANAS = DATA_ROOT / "banana-detection"
SOURCES = {
    "street": AnnotatedSource(
        read_signs, DATA_ROOT / "street", draw_street, STREET_WINDOWS, sized=False
    ),
    "gtsdb": AnnotatedSource(
        read_signs, DATA_ROOT / "gtsdb", None, replace(SIGN_WINDOWS, each=4), sized=False
    ),
    "voc": AnnotatedSource(readers.read_voc, DATA_ROOT, download_voc, GENERAL_WINDOWS, 320),
    "coco": AnnotatedSource(read_coco, None, None, GENERAL_WINDOWS, 320),
    "yolo": AnnotatedSource(read_yolo, None, None, GENERAL_WINDOWS, 320),
    "labelme": AnnotatedSource(readers.read_labelme, None, None, GENERAL_WINDOWS, 320),
    "banana": AnnotatedSource(readers.read_bananas, BANANAS, None, GENERAL_WINDOWS, 320),
}


# ---------------------------------------------------------------- splits


@dataclass(frozen=True)
class Split:
    """Pictures of one split with their boxes, as read.

    Attributes:
        classes: names; a label is an index into them.
        paths: of the N pictures.
        sizes: (height, width) of each, as read.
        pictures: uint8 (H, W, 3) each; None where they would not fit in memory.
        boxes: float64 (n, 4) of each picture: left, top, right, bottom in its pixels, inside it.
        labels: int64 (n,) of each.
        ignored: bool (n,) of each.
        longest: see `AnnotatedSource`.
        as_stored: pictures that are not turned as their EXIF says, since their boxes are not.
    """

    classes: tuple[str, ...]
    paths: list[Path]
    sizes: list[tuple[int, int]]
    pictures: list[np.ndarray] | None
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    ignored: list[np.ndarray]
    longest: int | None = None
    as_stored: frozenset[Path] = frozenset()


def read_split(
    dataset: str,
    root: Path,
    mode: str,
    classes: Sequence[str] | None = None,
    val_share: float = VAL_SHARE,
    longest: int | None = None,
) -> Split:
    """Read a split of a data set; what is wrong with single pictures and boxes is said.

    Boxes are cut off at the picture's border; of swapped corners, they are put right. Boxes without
    area, outside the picture, or of unknown classes are left out. So are pictures that cannot be
    read or have another size than the annotation says, and those of which no box can be placed: as
    pictures without boxes, they would teach that nothing is there.

    Args:
        classes: those that a network knows; None for those of the training split.
        val_share: of train, held out as val where there is no val.
        longest: the size that a network knows; None for the data set's (`AnnotatedSource`).

    Raises:
        LabError: no such split, annotations that cannot be read, or nothing left to be found.
    """
    source = SOURCES[dataset]
    listing, parted = find_annotated(SOURCES, dataset, "annotations", root, mode, val_share)
    if classes is None:
        training = listing if mode == "train" or parted else source.read(root, "train")
        classes = (training or listing).classes
    return load_split(listing, tuple(classes), longest or source.longest)


def load_split(listing: Listing, classes: tuple[str, ...], longest: int | None) -> Split:
    """Decode the pictures of a listing and judge their boxes; errors as in `read_split`."""
    as_stored = set()

    def read(picture: Annotated) -> tuple[np.ndarray, tuple[int, int]]:
        if picture.problem:
            raise OSError(picture.problem)
        image, stored = as_annotated(open_image(picture.path), picture.path, picture.size)
        if stored:
            as_stored.add(picture.path)
        whole = image.height, image.width
        if picture.size not in (None, whole):
            said = "x".join(map(str, reversed(picture.size)))
            raise OSError(f"is {image.width}x{image.height}, but annotated as {said}")
        return shrink(image, longest), whole

    decoded, pictures = decode_listing(read, listing)
    say_as_stored(listing.source, as_stored, "boxes")
    left_out = Complaints()
    if listing.orphans:
        left_out["of pictures that are not listed"] = [""] * listing.orphans
    kept, sizes, boxes, labels, ignored = [], [], [], [], []
    for index, (picture, whole) in enumerate(decoded):
        clear, lost = usable_boxes(picture, whole, classes, left_out)
        if lost and not clear:
            left_out.pictures.append(printable(picture.path.name))
            continue
        kept.append(index)
        sizes.append(shrunk(whole, longest))
        scale = np.array([sizes[-1][1] / whole[1], sizes[-1][0] / whole[0]] * 2)
        boxes.append(np.array([box.corners for box in clear], float).reshape(-1, 4) * scale)
        labels.append(np.array([classes.index(box.name) for box in clear], np.int64))
        ignored.append(np.array([box.ignored for box in clear], bool))
    for text in (*listing.remarks, *left_out.lines()):
        say(f"{listing.source}: {text}")
    if all(hidden.all() for hidden in ignored):
        text = "no good box in a good picture" + ", only difficult ones" * any(map(len, ignored))
        raise LabError(f"{listing.source} leaves nothing to find: {text}")
    paths = [decoded[index][0].path for index in kept]
    pictures = pictures and [pictures[index] for index in kept]
    classes = tuple(map(printable, classes))
    judged = boxes, labels, ignored
    return Split(classes, paths, sizes, pictures, *judged, longest, frozenset(as_stored))


def absent_classes(split: Split) -> list[str]:
    """Return the classes of which a split has no box that is to be found."""
    pairs = zip(split.labels, split.ignored, strict=True)
    present = {label for labels, ignored in pairs for label in labels[~ignored].tolist()}
    return [name for label, name in enumerate(split.classes) if label not in present]


class Complaints(dict[str, list[str]]):
    """What is wrong with boxes, and the names of the pictures that have such ones.

    Attributes:
        pictures: names of those that are left out with their boxes.
        turned: names of those with boxes of swapped corners.
    """

    def __init__(self):
        super().__init__()
        self.pictures: list[str] = []
        self.turned: list[str] = []

    def lines(self) -> list[str]:
        """Return what is to be said, a line each."""
        lines = [f"left out {self}"] if self else []
        if self.pictures:
            count, name = len(self.pictures), self.pictures[0]
            lines.append(f"left out {count:,} pictures with such boxes and no other ({name})")
        if self.turned:
            count, name = len(self.turned), self.turned[0]
            lines.append(f"{count:,} boxes with swapped corners, put right ({name})")
        return lines

    def __str__(self) -> str:
        kinds = [
            f"{len(names):,} {what}" + (f" ({names[0]})" if names[0] else "")
            for what, names in sorted(self.items(), key=lambda item: -len(item[1]))
        ]
        more = f" and {len(kinds) - 4} more kinds" if len(kinds) > 4 else ""
        count = counted(sum(map(len, self.values())), "boxes")
        return f"{count}: {', '.join(kinds[:4])}{more}"


def usable_boxes(
    picture: Annotated, size: tuple[int, int], classes: Sequence[str], complaints: Complaints
) -> tuple[list[Box], int]:
    """Return the boxes that can be used, cut off at the picture's border; note the others.

    Returns:
        Those boxes, and the number of others of these classes: there, but nobody knows where.
    """
    height, width = size
    clear, lost, name = [], 0, printable(picture.path.name)
    for box in picture.boxes:
        left, top, right, bottom = box.corners
        if picture.shares:
            beyond = max(map(abs, box.corners)) > MOST_SHARE
            left, right, top, bottom = left * width, right * width, top * height, bottom * height
        inside = (max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height))
        if not all(map(math.isfinite, box.corners)):
            wrong = "whose corners are no numbers"
        elif right <= left or bottom <= top:
            wrong = "without area"
        elif picture.shares and beyond:
            wrong = "in other units than shares of the picture's size"
        elif not picture.shares and max(right, bottom) <= 1:
            wrong = "within one pixel (in shares of the picture's size?)"
        elif inside[2] <= inside[0] or inside[3] <= inside[1]:
            wrong = "outside the picture"
        elif box.name not in classes:
            wrong = f"of the unknown class {printable(box.name)!r}"
        else:
            clear.append(box._replace(corners=inside))
            complaints.turned += [name] * box.swapped
            continue
        lost += box.name in classes
        complaints.setdefault(wrong, []).append(name)
    return clear, lost


# ---------------------------------------------------------------- the loader


class DetectionDataset(WindowDataset):
    """Pictures with their boxes."""

    def cut_windows(
        self, indices: Sequence[int], windows: Windows, generator: torch.Generator
    ) -> tuple[Tensor, list[Target]]:
        split = self.split
        size = (windows.size, windows.size)
        pixels = torch.empty(len(indices), 3, *size, dtype=torch.uint8, device=self.cut_on)
        targets = []
        draws = torch.rand(len(indices), DRAWS, generator=generator).tolist()
        for k, (index, own) in enumerate(zip(indices, draws, strict=True)):
            boxes, ignored = split.boxes[index], split.ignored[index]
            window = choose_window(split.sizes[index], boxes[~ignored], windows, own)
            pixels[k] = cut(self.pixels(index), window, size)
            moved, share = move_boxes(boxes, window, windows.size)
            here = share > 0
            sides = moved[:, 2:] - moved[:, :2]
            unclear = ignored | (share < SEEN_SHARE) | (sides.max(1, initial=0) < SMALLEST)
            targets.append(target_of(moved[here], split.labels[index][here], unclear[here]))
        return pixels, self._on_device(targets)

    def vary(self, images: Tensor, generator: torch.Generator) -> Tensor:
        return vary_windows(images, generator)

    def whole(self, indices: Sequence[int]) -> tuple[Tensor, list[Target]]:
        return self.whole_images(indices), self._on_device(list(map(self.truth, indices)))

    def truth(self, index: int) -> Target:
        split = self.split
        return target_of(split.boxes[index], split.labels[index], split.ignored[index])

    def shows(self, index: int) -> int:
        return len(self.split.boxes[index])

    def _on_device(self, targets: list[Target]) -> list[Target]:
        """Bring all of them there in one piece, since each way takes its time."""
        counts = [len(target["labels"]) for target in targets]
        joined = {
            name: upload(torch.cat([target[name] for target in targets]), self.device)
            for name in targets[0]
        }
        each = zip(*(values.split(counts) for values in joined.values()), strict=True)
        return [dict(zip(joined, own, strict=True)) for own in each]


def target_of(boxes: np.ndarray, labels: np.ndarray, ignored: np.ndarray) -> Target:
    """Return what is to be found in an image."""
    return {
        "boxes": torch.from_numpy(boxes).float(),
        "labels": torch.from_numpy(labels),
        "ignored": torch.from_numpy(ignored),
    }


make_loader, test_loader = DetectionDataset.loader, load_test
