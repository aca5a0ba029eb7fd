"""What a detector takes for what: found as another class, missed, found where nothing is.

    pairs = matches(detections, targets)        # as average precision matches, but for the class
    matrix = confusion_of(pairs, len(classes))  # (C + 1, C + 1); the last one is nothing
    worst = costliest(pairs)

Detections take, by falling score, the true box that they overlap most, of those not taken yet, if
the IoU is 0.5 or more (COCO's rule; its matches are of a class each, so that they know no
confusion). What lies by half or more in an ignored box is neither right nor wrong, as COCO has it.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.ops import box_area, box_iou

from lab.pictures import Confusion, Grid, Picture, sheet, shorten
from tasks.detection.data import DetectionDataset
from tasks.detection.detector import SAME, SHOWN_SCORE, Detections, Target

AROUND = 0.5  # of a box's sides, that a crop shows around it
SHOWN, SIDE = 24, 96  # mistakes on a sheet; pixels a side of each
NOTHING = -1  # instead of a class


class Pair(NamedTuple):
    """A true box and what was found there, either of which may be nothing."""

    picture: int
    true: int  # class, or NOTHING
    found: int  # class, or NOTHING
    score: float  # of what was found; 0 where nothing was
    box: tuple[float, float, float, float]  # of the truth, else of what was found

    @property
    def cost(self) -> float:
        """How bad a mistake is: how sure the network was, or how large what it missed."""
        if self.found != NOTHING:
            return self.score
        left, top, right, bottom = self.box
        return min(1.0, max(right - left, bottom - top) / 100)  # of 100 pixels, nobody misses it


def matches(detections: Sequence[Detections], targets: Sequence[Target]) -> list[Pair]:
    """Return all pairs of pictures, a detection or a true box each once."""
    pairs = []
    for picture, (found, target) in enumerate(zip(detections, targets, strict=True)):
        overlaps = box_iou(found["boxes"], target["boxes"]).numpy()  # (k, n)
        ignored, labels = target["ignored"].numpy(), target["labels"].tolist()
        covered = shares_covered(found["boxes"], target["boxes"][target["ignored"]]).numpy()
        boxes, free = target["boxes"].tolist(), ~ignored
        for k in found["scores"].argsort(descending=True, stable=True).tolist():
            score, label = float(found["scores"][k]), int(found["labels"][k])
            if score < SHOWN_SCORE:  # what pictures show, counts
                break
            own = np.where(free, overlaps[k], 0)
            if own.max(initial=0) >= SAME:
                n = int(own.argmax())
                free[n] = False
                pairs.append(Pair(picture, labels[n], label, score, tuple(boxes[n])))
            elif covered[k].max(initial=0) < SAME:
                box = tuple(found["boxes"][k].tolist())
                pairs.append(Pair(picture, NOTHING, label, score, box))
        missed = np.flatnonzero(free).tolist()
        pairs += [Pair(picture, labels[n], NOTHING, 0.0, tuple(boxes[n])) for n in missed]
    return pairs


def shares_covered(boxes: Tensor, regions: Tensor) -> Tensor:
    """Return the share of each box's area that each region covers: (k, 4), (n, 4) to (k, n)."""
    iou, area = box_iou(boxes, regions), box_area(boxes)[:, None].clamp(min=1e-6)
    return iou / (1 + iou) * (1 + box_area(regions) / area)


def confusion_of(pairs: Sequence[Pair], count: int) -> np.ndarray:
    """Return how often each of `count` classes, or nothing at last, was found as each."""
    matrix = np.zeros((count + 1, count + 1), int)
    np.add.at(matrix, ([pair.true for pair in pairs], [pair.found for pair in pairs]), 1)
    return matrix


def costliest(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the mistakes, the worst first."""
    return sorted((p for p in pairs if p.true != p.found), key=lambda pair: -pair.cost)


def draw_confusion(matrix: np.ndarray, classes: Sequence[str]) -> Picture:
    """Return the picture of a confusion matrix, of the classes that are there or found."""
    there = np.flatnonzero((matrix.sum(0) + matrix.sum(1))[:-1] > 0).tolist()
    names = [*(classes[k] for k in there), "nothing"]
    right, others, missed, extra = (
        int(matrix.diagonal().sum()),
        int(matrix[:-1, :-1].sum() - matrix.diagonal().sum()),
        int(matrix[:-1, -1].sum()),
        int(matrix[-1, :-1].sum()),
    )
    title = (
        f"{right:,} found as what they are, {others:,} as another class, {missed:,} missed, "
        f"{extra:,} where nothing is"
    )
    shown = matrix[np.ix_([*there, -1], [*there, -1])]
    return Picture("confusion_matrix.jpg", title, (Confusion(shown, names),))


def crop(dataset: DetectionDataset, pair: Pair) -> Image.Image:
    """Return what a pair is about, with what is around it, in a square."""
    left, top, right, bottom = pair.box
    half = max(right - left, bottom - top) * (0.5 + AROUND)
    x, y = (left + right) / 2, (top + bottom) / 2
    picture = Image.fromarray(dataset.picture(pair.picture))
    square = picture.crop(tuple(round(edge) for edge in (x - half, y - half, x + half, y + half)))
    return square.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def in_words(pair: Pair, classes: Sequence[str]) -> str:
    """Say what a mistake is."""
    if pair.found == NOTHING:
        return f"{shorten(classes[pair.true])}\nmissed"
    found = f"{shorten(classes[pair.found])}, {pair.score:.0%}"
    there = "nothing" if pair.true == NOTHING else shorten(classes[pair.true])
    return f"{there}\nfound as {found}"


def draw_mistakes(
    dataset: DetectionDataset, worst: Sequence[Pair], classes: Sequence[str]
) -> Picture:
    """Return a sheet of the worst mistakes."""
    shown = worst[:SHOWN]
    crops = [np.array(crop(dataset, pair)) for pair in shown]
    grid: Grid = sheet(crops, [in_words(pair, classes) for pair in shown], 6, side=1.6)
    title = f"The {len(shown)} costliest of {len(worst)} mistakes"
    return Picture("mistakes.jpg", title, (grid,))


def crops_of(
    dataset: DetectionDataset, worst: Sequence[Pair], classes: Sequence[str]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield each mistake as a crop with its file's name, the worst first."""
    for number, pair in enumerate(worst):
        true, found = (
            "nothing" if label == NOTHING else classes[label][:80].replace("/", "_")
            for label in (pair.true, pair.found)
        )
        found = "missed" if pair.found == NOTHING else f"as_{found}"
        yield f"mistake_{number:04d}_{true}_{found}.jpg", crop(dataset, pair)
