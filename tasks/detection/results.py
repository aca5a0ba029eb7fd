"""What test.py prints and draws of what is found, and how a classifier reads it.

The second of two stages, as in R-CNN (Girshick et al. 2014): each box is cut out of the picture,
resized, and shown to a network that has learned to tell the classes apart and nothing else.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from PIL import Image, ImageDraw

from lab.console import padded, progress, say
from lab.drawing import draw, pillow_font, publish
from lab.fetching import given_images
from lab.films import film_name, films_and_pictures
from lab.images import as_input, cut_out
from lab.pictures import Curves, Grid, Picture, Tile, frame, longest_line, shorten
from lab.runtime import Runtime
from tasks import TestFlags
from tasks.annotated import seen_size, shrink
from tasks.detection import mistakes
from tasks.detection.data import DetectionDataset
from tasks.detection.detector import LEAST_SCORE, SHOWN_SCORE, Detections
from tasks.detection.films import FAINT, annotate_film
from tasks.detection.meter import DetectionMeter
from tasks.detection.networks import folded
from tasks.sign_reader import SignReader
from tasks.testing import save_results
from tasks.trained import Trained


def as_read(reader: SignReader, picture: np.ndarray, detections: Detections) -> Detections:
    """Return detections as read: each one's class, and its score times the certainty of that.

    Args:
        reader: of the detector's classes. Its classifier need not know all of them.
        picture: uint8 (H, W, 3).
    """
    if not len(detections["boxes"]):
        return detections
    image = Image.fromarray(picture)
    crops = [cut_out(image, box) for box in detections["boxes"].tolist()]
    labels, certainty = reader.read(crops)
    return detections | {"labels": labels, "scores": detections["scores"] * certainty}


def report(
    trained: Trained, flags: TestFlags, meter: DetectionMeter, dataset: DetectionDataset
) -> None:
    """Print average precision of each class and over all, and draw precision over recall."""
    say_figures(meter)
    if flags.read is not None:
        reader = SignReader(flags, meter.classes)
        read = DetectionMeter(meter.classes)
        read.targets = meter.targets
        read.detections = [
            as_read(reader, dataset.picture(index), detections)
            for index, detections in enumerate(progress(meter.detections, label="reading"))
        ]
        read.compute(Runtime(torch.device("cpu")))
        say(f"Read by {flags.read}:")
        say_figures(read)
        meter = read
    recalls = np.linspace(0, 1, 101)
    curves = Curves(recalls, meter.curves, ("recall", "precision at an IoU of 0.5"))
    title = "Precision over recall, each class by itself"
    picture = Picture("precision_recall.jpg", title, (curves,))
    publish(draw(picture), trained.results / picture.path)
    pairs = mistakes.matches(meter.detections, meter.targets)
    matrix = mistakes.confusion_of(pairs, len(meter.classes))
    shown = [mistakes.draw_confusion(matrix, meter.classes)]
    if worst := mistakes.costliest(pairs):
        shown.append(mistakes.draw_mistakes(dataset, worst, meter.classes))
    for picture in shown:
        publish(draw(picture), trained.results / picture.path)
    say(f"Of what is found with a score of {SHOWN_SCORE:g}: {shown[0].title}")
    if flags.save:
        pictures = draw_boxes(dataset, meter)
        save_results(trained, pictures, len(dataset), "[0-9]*.jpg", quality=90)
        crops = mistakes.crops_of(dataset, worst, meter.classes)
        save_results(trained, crops, len(worst), "mistake_*.jpg", inputs="mistakes", quality=90)


def say_figures(meter: DetectionMeter) -> None:
    """Print a meter's figures: a class a line, then all together."""
    counts = torch.bincount(
        torch.cat([target["labels"][~target["ignored"]] for target in meter.targets]),
        minlength=len(meter.classes),
    ).tolist()
    width = max(5, longest_line(meter.classes))
    say(f"{'class':{width}}       AP    boxes")
    for name, count in zip(meter.classes, counts, strict=True):
        if name in meter.by_class:
            say(f"{padded(name, width)}  {meter.by_class[name]:7.2%}  {count:7d}")
    for name, value in meter.figures.items():
        say(f"{name.replace('_', ' '):{width}}  {value:7.2%}")


def draw_boxes(
    dataset: DetectionDataset, meter: DetectionMeter
) -> Iterator[tuple[str, Image.Image]]:
    """Yield every picture, and its file's name, with what is there in green, found in magenta."""
    results = zip(meter.targets, meter.detections, strict=True)
    for index, (target, detections) in enumerate(results):
        image = Image.fromarray(dataset.picture(index))
        pen = ImageDraw.Draw(image)
        for box in target["boxes"].tolist():
            pen.rectangle(box, outline="lime")
        for box, score, label in shown_of(detections):
            pen.rectangle(box, outline="magenta")
            text = f"{meter.classes[label]} {score:.0%}"
            pen.text((box[0], box[3]), text, fill="magenta", font=pillow_font(text))
        yield f"{index:05d}.jpg", image


def shown_of(detections: Detections) -> list[tuple[list[float], float, int]]:
    """Return box, score and label of what is found with a score of at least `SHOWN_SCORE`."""
    columns = (detections[name].tolist() for name in ("boxes", "scores", "labels"))
    return [row for row in zip(*columns, strict=True) if row[1] >= SHOWN_SCORE]


def read_pictures(trained: Trained, flags: TestFlags) -> None:
    """Print what is found in pictures and films, and draw it over each into the run's folder."""
    classes, runtime, network = trained.classes, trained.runtime, folded(trained.network)
    reader = SignReader(flags, classes) if flags.read is not None else None

    def search(picture: np.ndarray, threshold: float = LEAST_SCORE) -> Detections:
        runtime.take_free_threads()
        seen = shrink(Image.fromarray(picture), seen_size(trained))
        with torch.inference_mode(), runtime.autocast():
            (detections,) = network.detect(as_input(seen).to(runtime.device), threshold)
        detections = {name: value.cpu() for name, value in detections.items()}
        height, width = np.divide(picture.shape[:2], seen.shape[:2]).tolist()
        detections["boxes"] = detections["boxes"] * torch.tensor([width, height] * 2)
        return detections if reader is None else as_read(reader, picture, detections)

    given, pictures = films_and_pictures(flags.image, flags.film)
    for number, path in enumerate(given):
        target = trained.results / film_name(number, path)
        annotate_film(path, partial(search, threshold=FAINT), classes, target)
    for number, (path, image) in enumerate(given_images(pictures) if pictures else ()):
        picture = np.array(image.convert("RGB"))
        rows = shown_of(search(picture))
        marks = tuple(frame(b, "cyan", f"{classes[k]} {score:.0%}") for b, score, k in rows)
        for box, score, label in rows:
            place = ", ".join(f"{edge:.0f}" for edge in box)
            say(f"{path.name}  {classes[label]} {score:.1%}  at {place}")
        if not rows:
            say(f"{path.name}  nothing")
        grid = Grid([[Tile(picture, marks=marks)]], side=6)
        title = f"{shorten(path.name, 60)}: {len(rows)} found"
        shown = Picture(f"found_{number:03d}_{path.stem[:60]}.jpg", title, (grid,))
        publish(draw(shown), trained.results / shown.path)
