"""What test.py prints and draws of labelled pixels."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lab.console import LabError, progress, say
from lab.images import open_image
from lab.pictures import Confusion, Grid, Legend, Picture, Tile, draw, publish, shorten
from lab.runtime import Runtime
from tasks.segmentation.data import SegmentationDataset
from tasks.segmentation.labels import CAMVID_CLASSES, IGNORED, colours_of
from tasks.segmentation.meter import SegmentationMeter
from tasks.segmentation.segmenter import Segmenter
from tasks.windows import shrink

LARGE = ("sky", "building", "road", "tree", "car")  # what a street mostly consists of
COVER = 0.6  # of the colour of a class over what is below it
LONGEST = 640  # pixels: to this a photograph of one's own is shrunk, as streets are drawn
LEAST_SHARE = 0.005  # of the pixels, of a class that is said
GREY, WRONG = (128, 128, 128), (255, 0, 255)  # of pixels labelled rightly and wrongly


# ---------------------------------------------------------------- the test split


def report_figures(args: Namespace, meter: SegmentationMeter) -> None:
    """Print IoU and accuracy of each class and over all, and draw what was taken for what."""
    say_figures(meter)
    counts = meter.matrix.numpy()
    shares = (100 * counts / counts.sum(1, keepdims=True).clip(1)).round().astype(int)
    title = "Of the pixels of each class, in %, what they were taken for"
    picture = Picture("confusion_matrix.jpg", title, (Confusion(shares, meter.classes),))
    publish(draw(picture), args.ckpt_path / picture.path)


def say_figures(meter: SegmentationMeter) -> None:
    """Print a meter's figures: a class a line, then all together."""
    true = meter.matrix.sum(1)
    columns = meter.iou, meter.matrix.diag() / true, true / true.sum()
    width = max(14, *map(len, meter.classes))
    say(f"{'class':{width}}      IoU  accuracy  of pixels")
    for name, *figures in zip(meter.classes, *(c.tolist() for c in columns), strict=True):
        iou, accuracy, share = ("–" if f != f else f"{f:.2%}" for f in figures)
        say(f"{name:{width}}  {iou:>7}   {accuracy:>7}    {share:>7}")
    for name, value in meter.figures.items():
        if name != "loss":
            say(f"{name.replace('_', ' '):{width}}  {value:7.2%}")
    if meter.classes == CAMVID_CLASSES:
        large = meter.iou[[CAMVID_CLASSES.index(name) for name in LARGE]].nanmean()
        say(f"mean IoU of {', '.join(LARGE)}: {large:.2%}")


@torch.inference_mode()
def save_results(
    dataset: SegmentationDataset, model: Segmenter, runtime: Runtime, folder: Path
) -> None:
    """Write every picture as NNNNN.jpg: itself, the true labels over it, and those found.

    Raises:
        LabError: the folder cannot be written.
    """
    colours = colours_of(dataset.classes)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("[0-9]*.jpg"):
            old.unlink()
        for index, labels in enumerate(progress(dataset.split.labels, label="saving")):
            picture = dataset.picture(index)
            found = label_picture(model, picture, runtime)
            row = [picture, *(cover(picture, each, colours) for each in (labels, found))]
            Image.fromarray(np.concatenate(row, 1)).save(folder / f"{index:05d}.jpg", quality=90)
    except OSError as error:
        raise LabError(f"cannot write to {folder}: {error.strerror or error}") from error
    say(f"Saved {len(dataset):,} pictures in {folder}")


# ---------------------------------------------------------------- one picture


def as_input(picture: np.ndarray) -> Tensor:
    """Return a picture, uint8 (H, W, 3), as a batch of network input, (1, 3, H, W)."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float().div_(127.5).sub_(1)


@torch.inference_mode()
def label_picture(model: Segmenter, picture: np.ndarray, runtime: Runtime) -> np.ndarray:
    """Return the labels that a network in evaluation mode gives a picture, uint8 (H, W)."""
    images = as_input(picture).to(runtime.device, memory_format=torch.channels_last)
    with runtime.autocast():
        scores = model.segment(images)
    return scores[0].argmax(0).byte().cpu().numpy()


def cover(
    picture: np.ndarray, labels: np.ndarray, colours: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """Return a picture (H, W, 3) in the colours of its labels; black where they are IGNORED."""
    table = np.zeros((IGNORED + 1, 3))
    table[: len(colours)] = colours
    grey = picture.mean(2, keepdims=True)
    mixed = COVER * table[labels] + (1 - COVER) * grey
    mixed[labels == IGNORED] = 0
    return mixed.round().astype(np.uint8)


def mark_wrong(picture: np.ndarray, labels: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Return a picture in grey, with what is labelled wrongly in WRONG, what is not in black."""
    return cover(picture, np.where(labels == IGNORED, IGNORED, labels != found), (GREY, WRONG))


def legend(classes: Sequence[str], *labels: np.ndarray) -> Legend:
    """Return the colours of the classes that are among labels."""
    present = sorted(set(np.unique(np.concatenate([each.ravel() for each in labels]))) - {IGNORED})
    colours = colours_of(classes)
    return Legend({shorten(classes[k]): colours[k] for k in present})


# ---------------------------------------------------------------- pictures of one's own


def label_files(
    args: Namespace, classes: Sequence[str], model: Segmenter, files: list[Path], runtime: Runtime
) -> None:
    """Print what pictures show, and draw it over each into the run's folder."""
    model.eval()
    for number, path in enumerate(files):
        try:
            picture = shrink(open_image(path), LONGEST)
        except OSError as error:
            raise LabError(f"{path}: {error.strerror or error}") from error
        found = label_picture(model, picture, runtime)
        shares = np.bincount(found.ravel(), minlength=len(classes)) / found.size
        order = [k for k in shares.argsort()[::-1] if shares[k] >= LEAST_SHARE]
        say(f"{path.name}  " + ", ".join(f"{classes[k]} {shares[k]:.1%}" for k in order))
        tiles = [[Tile(picture), Tile(cover(picture, found, colours_of(classes)))]]
        parts = Grid(tiles, side=4), legend(classes, found)
        shown = Picture(
            f"labelled_{number:03d}_{path.stem[:60]}.jpg", shorten(path.name, 60), parts
        )
        publish(draw(shown), args.ckpt_path / shown.path)
