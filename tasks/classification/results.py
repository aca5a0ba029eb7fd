"""What test.py prints, draws and saves of classified images, and what it says of one's own."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from torch import Tensor
from torch.utils.data import Dataset

from datasets import ImageDataset
from lab.console import UsageError, counted, padded, say
from lab.drawing import draw, publish
from lab.fetching import given_images, name_of
from lab.files import write_whole
from lab.films import VIDEOS
from lab.images import to_arrays
from lab.pictures import Grid, Picture, confusion, longest_line, sheet, shorten
from lab.run import as_csv
from tasks import TestFlags
from tasks.classification.objective import ClassificationMeter
from tasks.testing import save_results
from tasks.trained import Trained, preprocess_of_run

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
LIKELIEST = 5  # classes named of each picture of one's own
SHEET = 48  # pictures on a sheet
READ_AT_ONCE = 256  # pictures of one's own in a batch


def report(
    trained: Trained, flags: TestFlags, meter: ClassificationMeter, dataset: ImageDataset
) -> None:
    """Print a table of classes and the accuracy, and draw what was confused with what."""

    def pixels(indices: Sequence[int]) -> np.ndarray:
        return dataset.pixels(indices).expand(-1, -1, -1, 3).cpu().numpy()  # grey as RGB

    def lay_out(indices: list[int], pairs: list[tuple[str, str]]) -> Grid:
        captions = [f"{shorten(name)}\nread as {shorten(read)}" for name, read in pairs]
        return sheet(pixels(indices), captions)

    def image(index: int) -> Image.Image:
        return Image.fromarray(pixels([index])[0])

    report_classes(trained, flags, meter, dataset, "images", image, lay_out, SHEET)


def report_classes(
    trained: Trained, flags: TestFlags, meter: ClassificationMeter, dataset: Dataset, inputs: str,
    image: Callable[[int], Image.Image],
    lay_out: Callable[[list[int], list[tuple[str, str]]], Grid], most: int,
) -> None:  # fmt: skip
    """Print, draw and save the same of whatever is classified.

    What each input was taken for goes into `predictions.csv`, in the order of the split. `--save`
    writes each as NNNN_correct_LABEL_PRED.jpg or NNNN_wrong_..., and a sheet of mistakes.

    Args:
        inputs: what they are, in the plural.
        image: the input of an index as a picture.
        lay_out: mistakes, at `most` so many, as a sheet: their indices, and of each the name of
            its class and of what it was taken for.
    """
    labels, predictions = meter.labels.cpu().numpy(), meter.predictions.cpu().numpy()
    classes, every = dataset.classes, range(len(dataset.classes))
    table = precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0)
    width = max(5, longest_line(classes))
    say(f"{'class':{width}}  precision   recall  {inputs:>7}")
    for name, precision, recall, _, count in zip(classes, *table, strict=True):
        say(f"{padded(name, width)}  {precision:9.2%}  {recall:7.2%}  {count:7.0f}")
    wrong = np.flatnonzero(labels != predictions).tolist()
    correct = len(labels) - len(wrong)
    share = correct / len(labels)
    say(f"accuracy on the test set: {share:.2%} ({correct:,} of {len(labels):,})")

    pairs = [(classes[own], classes[read]) for own, read in zip(labels, predictions, strict=True)]
    rows = [
        {"input": index, "label": name, "prediction": read}
        for index, (name, read) in enumerate(pairs)
    ]
    write_whole(trained.results / "predictions.csv", as_csv(rows))
    matrix = confusion_matrix(labels, predictions, labels=every)
    publish(draw(confusion(matrix, classes)), trained.results / "confusion_matrix.jpg")
    if not flags.save:
        return

    def pictures() -> Iterator[tuple[str, Image.Image]]:
        for index, (name, read) in enumerate(pairs):
            verdict = "correct" if name == read else "wrong"
            yield f"{index:04d}_{verdict}_{file_part(name)}_{file_part(read)}.jpg", image(index)

    save_results(
        trained, pictures(), len(pairs), "[0-9]*_correct_*.jpg", "[0-9]*_wrong_*.jpg",
        inputs=inputs, quality=95, subsampling=0,
    )  # fmt: skip
    if wrong:
        # Of all: the first ones would be of one class.
        places = np.linspace(0, len(wrong) - 1, min(most, len(wrong))).round().astype(int)
        shown = [wrong[place] for place in places]
        title = f"{len(shown)} of {len(wrong)} mistakes among {len(dataset):,} {inputs}"
        parts = (lay_out(shown, [pairs[index] for index in shown]),)
        picture = Picture("results/mistakes.jpg", title, parts)
        publish(draw(picture), trained.results / picture.path)


def file_part(name: str) -> str:
    """Return a class's name as a part of a file's name, of 80 bytes at the most."""
    return name.encode(errors="surrogateescape")[:80].decode(errors="ignore")


def read_pictures(trained: Trained, flags: TestFlags) -> None:
    """Print the likeliest classes of pictures, and draw them on a sheet."""
    for name in flags.image:
        if Path(name).suffix.lower() in set(VIDEOS) - {".gif"}:
            raise UsageError(
                f"{name} is a film: a run of --task detection annotates those, and with "
                f"--read {trained.path.parent} its signs are read"
            )
    preprocess = preprocess_of_run(trained.state)
    runtime = trained.runtime
    captions, pixels, rows = [], [], []
    fitted = ((path, preprocess.fit(image)) for path, image in given_images(flags.image))
    while batch := list(islice(fitted, READ_AT_ONCE)):
        width = longest_line(path.name for path, _ in batch)
        stacked = torch.from_numpy(np.stack([own for _, own in batch]))
        images = preprocess.normalize(stacked).to(runtime.device)
        with torch.inference_mode(), runtime.autocast():
            confidences = trained.network(images).float().softmax(1)
        for (path, _), own in zip(batch, confidences, strict=True):
            named = say_likeliest(padded(path.name, width), own, trained.classes)
            captions.append("\n".join([shorten(path.name), *named[:2]]))
            if flags.submission is not None:
                rows.append(submitted(path.stem, own, trained.classes))
        left = images[: SHEET - len(pixels)].cpu()
        pixels.extend(to_arrays(preprocess.denormalize(left)))
    if flags.submission is not None:
        rows.sort(key=lambda row: (len(row["id"]) if row["id"].isdecimal() else 0, row["id"]))
        write_whole(flags.submission, as_csv(rows))
        say(f"Saved {flags.submission}, a row for each of {len(rows):,} pictures")
    shown = len(pixels)
    title = f"What the network makes of {shown} of {counted(len(captions), 'pictures')}"
    parts = (sheet(pixels, captions[:shown]),)
    picture = Picture(f"images_{name_of(flags.image)}.jpg", title, parts)
    publish(draw(picture), trained.results / picture.path)


def submitted(name: str, confidences: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Return the row of a picture in Kaggle's table.

    CIFAR-10's competition asks for the likeliest class, dog-breed-identification for the
    probability of each, in the order of names.
    """
    if set(classes) == set(CIFAR10):
        return {"id": name, "label": classes[int(confidences.argmax())]}
    shares = dict(zip(classes, confidences.tolist(), strict=True))
    return {"id": name, **{own: f"{shares[own]:.6g}" for own in sorted(shares)}}


def say_likeliest(name: str, confidences: Tensor, classes: Sequence[str]) -> list[str]:
    """Print the likeliest classes of an input, by confidences (C,); return them with their own."""
    shares, labels = confidences.topk(min(LIKELIEST, len(classes)))
    pairs = zip(labels.tolist(), shares.tolist(), strict=True)
    named = [f"{classes[label]} {share:.1%}" for label, share in pairs]
    say(f"{name}  {', '.join(named)}")
    return named
