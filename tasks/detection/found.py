"""What test.py prints and draws of what is found, and how a classifier reads it.

The second of two stages, as in R-CNN (Girshick et al. 2014): each box is cut out of the picture,
resized, and shown to a network that has learned to tell the classes apart and nothing else.
"""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from lab.console import LabError, progress, say
from lab.images import open_image
from lab.pictures import Curves, Grid, Picture, Tile, draw, frame, publish, shorten
from lab.runtime import Runtime
from tasks.detection.data import DetectionDataset
from tasks.detection.detector import Detections, Detector
from tasks.detection.meter import DetectionMeter
from tasks.reading import SignReader

MARGIN = 0.1  # of a sign's sides, around it: what the classifier's photographs have
SURE = 0.3  # score from which a picture shows what is found


# ---------------------------------------------------------------- reading


class Reader:
    """A classifier that says what a detector has found.

    Args:
        path: a checkpoint of `--task classification`, or the folder of its run.
        classes: the detector's. The classifier need not know all of them.
        args: test.py's flags.

    Raises:
        LabError: no classifier, or none that knows the detector's classes.
    """

    def __init__(self, path: Path, classes: Sequence[str], args: Namespace):
        self.reader = SignReader(path, classes, args)

    def __call__(self, picture: np.ndarray, found: Detections) -> Detections:
        """Return detections as read: each one's class, and its score times the certainty of that.

        Args:
            picture: uint8 (H, W, 3).
        """
        if not len(found["boxes"]):
            return found
        image = Image.fromarray(picture)
        crops = [image.crop(widened(box)) for box in found["boxes"].tolist()]
        labels, certainty = self.reader.read(crops)
        return found | {"labels": labels, "scores": found["scores"] * certainty}


def widened(box: Sequence[float]) -> tuple[int, int, int, int]:
    """Return a box with a margin around it, in whole pixels, as Pillow crops it."""
    left, top, right, bottom = box
    x, y = MARGIN * (right - left), MARGIN * (bottom - top)
    return round(left - x), round(top - y), round(right + x), round(bottom + y)


# ---------------------------------------------------------------- the test split


def report_figures(args: Namespace, meter: DetectionMeter, dataset: DetectionDataset) -> None:
    """Print average precision of each class and over all, and draw precision over recall."""
    say_figures(meter)
    if args.read is not None:
        reader = Reader(args.read, meter.classes, args)
        read = DetectionMeter(meter.classes)
        read.targets = meter.targets
        read.detections = [
            reader(dataset.picture(index), found)
            for index, found in enumerate(progress(meter.detections, label="reading"))
        ]
        read.compute(Runtime(torch.device("cpu")))
        say(f"Read by {args.read}:")
        say_figures(read)
        meter = read
    recalls = np.linspace(0, 1, 101)
    curves = Curves(recalls, meter.curves, ("recall", "precision at an IoU of 0.5"))
    picture = Picture("precision_recall.jpg", "Of what is there, found; of what is found, there",
                      (curves,))  # fmt: skip
    publish(draw(picture), args.ckpt_path / picture.path)
    if args.save:
        save_results(dataset, meter, args.ckpt_path / "results")


def say_figures(meter: DetectionMeter) -> None:
    """Print a meter's figures: a class a line, then all together."""
    counts = torch.bincount(
        torch.cat([target["labels"][~target["ignored"]] for target in meter.targets]),
        minlength=len(meter.classes),
    ).tolist()
    width = max(5, *map(len, meter.classes))
    say(f"{'class':{width}}       AP    boxes")
    for name, count in zip(meter.classes, counts, strict=True):
        if name in meter.by_class:
            say(f"{name:{width}}  {meter.by_class[name]:7.2%}  {count:7d}")
    for name, value in meter.figures.items():
        say(f"{name.replace('_', ' '):{width}}  {value:7.2%}")


def save_results(dataset: DetectionDataset, meter: DetectionMeter, folder: Path) -> None:
    """Write every picture as NNNNN.jpg, with what is there in green, what is found in magenta.

    Raises:
        LabError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9]*.jpg"):
            old.unlink()
        results = list(zip(meter.targets, meter.detections, strict=True))
        for index, (target, found) in enumerate(progress(results, label="saving")):
            image = Image.fromarray(dataset.picture(index))
            pen = ImageDraw.Draw(image)
            for box in target["boxes"].tolist():
                pen.rectangle(box, outline="lime")
            for box, score, label in sure_ones(found):
                pen.rectangle(box, outline="magenta")
                text = f"{meter.classes[label]} {score:.0%}"
                pen.text((box[0], box[3]), text, fill="magenta")
            image.save(folder / f"{index:05d}.jpg", quality=90)
    except OSError as error:
        raise LabError(f"cannot write to {folder}: {error.strerror or error}") from error
    say(f"Saved {len(results):,} pictures in {folder}")


def sure_ones(found: Detections, least: float = SURE) -> list[tuple[list[float], float, int]]:
    """Return box, score and label of what is found with a score of at least `least`."""
    rows = zip(
        found["boxes"].tolist(), found["scores"].tolist(), found["labels"].tolist(), strict=True
    )
    return [row for row in rows if row[1] >= least]


# ---------------------------------------------------------------- pictures of one's own


def as_input(picture: np.ndarray) -> Tensor:
    """Return a picture, uint8 (H, W, 3), as a batch of network input, (1, 3, H, W)."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float().div_(127.5).sub_(1)


def search_files(
    args: Namespace,
    classes: Sequence[str],
    model: Detector,
    files: list[Path],
    runtime: Runtime,
) -> None:
    """Print what is found in pictures, and draw each with it into the run's folder."""
    reader = Reader(args.read, classes, args) if args.read is not None else None
    model.eval()
    for number, path in enumerate(files):
        try:
            picture = np.array(open_image(path).convert("RGB"))
        except OSError as error:
            raise LabError(f"{path}: {error.strerror or error}") from error
        with torch.inference_mode(), runtime.autocast():
            (found,) = model.detect(as_input(picture).to(runtime.device))
        found = {name: value.cpu() for name, value in found.items()}
        if reader is not None:
            found = reader(picture, found)
        rows = sure_ones(found)
        marks = tuple(frame(b, "cyan", f"{classes[k]} {score:.0%}") for b, score, k in rows)
        for box, score, label in rows:
            place = ", ".join(f"{edge:.0f}" for edge in box)
            say(f"{path.name}  {classes[label]} {score:.1%}  at {place}")
        if not rows:
            say(f"{path.name}  nothing")
        grid = Grid([[Tile(picture, marks=marks)]], side=6)
        title = f"{shorten(path.name, 60)}: {len(rows)} found"
        shown = Picture(f"found_{number:03d}_{path.stem[:60]}.jpg", title, (grid,))
        publish(draw(shown), args.ckpt_path / shown.path)
