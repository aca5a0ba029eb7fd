"""What test.py prints, draws and saves of labelled pixels, and what it says of one's own."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image

from lab.console import padded, say
from lab.drawing import draw, publish
from lab.fetching import given_images
from lab.films import annotate, film_name, films_and_pictures
from lab.images import as_input
from lab.pictures import Confusion, Grid, Legend, Picture, Tile, longest_line, shorten
from lab.runtime import to_device
from tasks import TestFlags
from tasks.annotated import seen_size, shrink
from tasks.blocks import fold
from tasks.segmentation.data import SegmentationDataset
from tasks.segmentation.labels import CAMVID_CLASSES, IGNORED, Colour, colours_of
from tasks.segmentation.objective import SegmentationMeter
from tasks.testing import save_results
from tasks.trained import Trained

LARGE = ("sky", "building", "road", "tree", "car")  # what a street mostly consists of
OPACITY = 0.6  # of the colour of a class over what is below it
LONGEST = 640  # pixels: a checkpoint that does not say its network's size was drawn streets'
LEAST_SHARE = 0.005  # of the pixels, of a class that is said
MISTAKES = 3  # pictures shown
GREY, WRONG = (128, 128, 128), (255, 0, 255)  # of pixels labelled rightly and wrongly


def report(
    trained: Trained, flags: TestFlags, meter: SegmentationMeter, dataset: SegmentationDataset
) -> None:
    """Print IoU and accuracy of each class and over all, and draw what was taken for what."""
    say_figures(meter)
    counts = meter.matrix.numpy()
    shares = (100 * counts / counts.sum(1, keepdims=True).clip(1)).round().astype(int)
    title = "Of the pixels of each class, in %, what they were taken for"
    picture = Picture("confusion_matrix.jpg", title, (Confusion(shares, meter.classes),))
    publish(draw(picture), trained.results / picture.path)
    if flags.save:
        predicted: list[np.ndarray] = []
        pictures = draw_labels(trained, dataset, predicted)
        save_results(trained, pictures, len(dataset), "[0-9]*.jpg", quality=90)
        picture = draw_mistakes(dataset, predicted)
        publish(draw(picture), trained.results / picture.path)


def say_figures(meter: SegmentationMeter) -> None:
    """Print a meter's figures: a class a line, then all together."""
    true = meter.matrix.sum(1)
    columns = meter.iou, meter.matrix.diag() / true, true / true.sum()
    width = max(14, longest_line(meter.classes))
    say(f"{'class':{width}}      IoU  accuracy  of pixels")
    for name, *figures in zip(meter.classes, *(c.tolist() for c in columns), strict=True):
        iou, accuracy, share = ("–" if f != f else f"{f:.2%}" for f in figures)
        say(f"{padded(name, width)}  {iou:>7}   {accuracy:>7}    {share:>7}")
    for name, value in meter.figures.items():
        if name != "loss":
            say(f"{name.replace('_', ' '):{width}}  {value:7.2%}")
    if meter.classes == CAMVID_CLASSES:
        large = meter.iou[[CAMVID_CLASSES.index(name) for name in LARGE]].nanmean()
        say(f"mean IoU of {', '.join(LARGE)}: {large:.2%}")


def draw_labels(
    trained: Trained, dataset: SegmentationDataset, kept: list[np.ndarray]
) -> Iterator[tuple[str, Image.Image]]:
    """Yield every picture, and its file's name, beside it in true and in predicted labels.

    Args:
        kept: gets the predicted ones.
    """
    colours = colours_of(dataset.classes)
    for index, labels in enumerate(dataset.split.labels):
        picture = dataset.picture(index)
        kept.append(predicted := label_picture(trained, picture))
        row = [picture, *(overlay(picture, each, colours) for each in (labels, predicted))]
        yield f"{index:05d}.jpg", Image.fromarray(np.concatenate(row, 1))


def draw_mistakes(dataset: SegmentationDataset, predicted: Sequence[np.ndarray]) -> Picture:
    """Return the pictures of which most is labelled wrongly, in true and in predicted labels."""
    pairs = list(zip(map(np.asarray, dataset.split.labels), predicted, strict=True))
    shares = [
        np.count_nonzero((true != own) & (true != IGNORED)) / max(1, (true != IGNORED).sum())
        for true, own in pairs
    ]
    worst = np.argsort(shares)[::-1][:MISTAKES].tolist()
    colours, rows = colours_of(dataset.classes), []
    for k in worst:
        pictures = dataset.picture(k), *(overlay(dataset.picture(k), p, colours) for p in pairs[k])
        notes = "picture", "truth", f"predicted: {shares[k]:.1%} is wrong"
        rows.append([Tile(p, note=note) for p, note in zip(pictures, notes, strict=True)])
    parts = Grid(rows, side=3), legend(dataset.classes, *(p for k in worst for p in pairs[k]))
    title = f"Of {len(pairs)} pictures, the {len(worst)} with most labelled wrongly"
    return Picture("results/mistakes.jpg", title, parts)


@torch.inference_mode()
def label_picture(trained: Trained, picture: np.ndarray) -> np.ndarray:
    """Return the labels that a network gives a picture, uint8 (H, W)."""
    trained.runtime.take_free_threads()
    with trained.runtime.autocast():
        scores = trained.network.segment(to_device(as_input(picture), trained.runtime))
    return scores[0].max(0).indices.byte().cpu().numpy()  # in up to a quarter of argmax's time


def overlay(picture: np.ndarray, labels: np.ndarray, colours: Sequence[Colour]) -> np.ndarray:
    """Return a picture (H, W, 3) in the colours of its labels; black where they are IGNORED."""
    greys = np.arange(3 * 255 + 1)  # of a pixel: the sum of its three values
    table = np.zeros((len(colours) + 1, len(greys), 3), np.uint8)
    mixed = OPACITY * np.array(colours)[:, None] + (1 - OPACITY) * greys[:, None] / 3
    table[:-1] = mixed.round()
    red, green, blue = picture.astype(np.uint16).transpose(2, 0, 1)
    rows = np.minimum(labels, len(colours)).astype(np.intp)
    return table.reshape(-1, 3).take(rows * len(greys) + red + green + blue, 0)


def mark_wrong(picture: np.ndarray, labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return a picture in grey, with what is labelled wrongly in WRONG, what is not in black."""
    wrong = np.where(labels == IGNORED, IGNORED, labels != predicted)
    return overlay(picture, wrong, (GREY, WRONG))


def legend(classes: Sequence[str], *labels: np.ndarray) -> Legend:
    """Return the colours of the classes that are among labels."""
    present = sorted(set(np.unique(np.concatenate([each.ravel() for each in labels]))) - {IGNORED})
    colours = colours_of(classes)
    return Legend({shorten(classes[k]): colours[k] for k in present})


def read_pictures(trained: Trained, flags: TestFlags) -> None:
    """Print what pictures show, and draw it over each, and over films, into the run's folder."""
    classes = trained.classes
    fold(trained.network)
    colours, longest = colours_of(classes), seen_size(trained, LONGEST)

    def mark(frame: np.ndarray, number: int) -> np.ndarray:
        frame = shrink(Image.fromarray(frame), longest)
        return overlay(frame, label_picture(trained, frame), colours)

    given, pictures = films_and_pictures(flags.image, flags.film)
    for number, path in enumerate(given):
        annotate(path, trained.results / film_name(number, path), mark)
    for number, (path, image) in enumerate(given_images(pictures) if pictures else ()):
        picture = shrink(image, longest)
        predicted = label_picture(trained, picture)
        shares = np.bincount(predicted.ravel(), minlength=len(classes)) / predicted.size
        order = [k for k in shares.argsort()[::-1] if shares[k] >= LEAST_SHARE]
        say(f"{path.name}  " + ", ".join(f"{classes[k]} {shares[k]:.1%}" for k in order))
        tiles = [[Tile(picture), Tile(overlay(picture, predicted, colours))]]
        parts = Grid(tiles, side=4), legend(classes, predicted)
        shown = Picture(
            f"labelled_{number:03d}_{path.stem[:60]}.jpg", shorten(path.name, 60), parts
        )
        publish(draw(shown), trained.results / shown.path)
