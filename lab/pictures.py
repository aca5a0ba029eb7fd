"""Pictures more than one script makes, and the one way a figure is saved and shown."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, SymmetricalLogLocator

from lab.console import LabError, say


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Save a figure; its folder is made.

    Raises:
        LabError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, bbox_inches="tight", pil_kwargs={"quality": 90})
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror or error}") from error


def publish(figure: Figure, path: Path) -> None:
    """Save a figure, say where, and open it in a window where there is a display."""
    save_figure(figure, path)
    say(f"Saved {path}")
    if plt.get_backend().lower() != "agg":  # what matplotlib falls back to without a display
        plt.show()
    plt.close(figure)


def draw_curves(history: Sequence[dict], ranks_by: str = "accuracy") -> Figure:
    """Draw loss and any validation accuracy over epochs; `history` as `engine.fit` returns it."""
    figure, loss_axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    validated = [row for row in history if row.get("val_accuracy") is not None]
    val_epochs = [row["epoch"] for row in validated]
    lines = loss_axis.plot(epochs, [row["loss"] for row in history], "o-", label="training loss")
    loss_axis.set_xlabel("epoch")
    loss_axis.set_ylabel("loss")
    loss_axis.set_ylim(bottom=0)
    loss_axis.xaxis.get_major_locator().set_params(integer=True)
    loss_axis.grid(alpha=0.3)
    if validated:
        val_losses = [row["val_loss"] for row in validated]
        lines += loss_axis.plot(val_epochs, val_losses, "s--", label="validation loss")
        accuracy_axis = loss_axis.twinx()
        accuracies = [100 * row["val_accuracy"] for row in validated]
        lines += accuracy_axis.plot(val_epochs, accuracies, "C2^-", label="validation accuracy")
        accuracy_axis.set_ylabel("accuracy (%)")
        loss_axis.set_title(f"best validation accuracy: {max(accuracies):.2f} %")
    loss_axis.legend(handles=lines, loc="center right")
    return figure


def save_curves(path: Path, history: Sequence[dict], ranks_by: str = "accuracy") -> None:
    """Draw the curves of `draw_curves` into a file, without opening a window."""
    figure = draw_curves(history, ranks_by)
    save_figure(figure, path)
    plt.close(figure)


def draw_comparison(histories: dict[str, Sequence[dict]], ranks_by: str = "accuracy") -> Figure:
    """Draw the losses and the validation accuracies of runs, a colour each.

    Accuracy has the logarithm of the error for its axis: 98 and 99 % are as far apart as 80 and 90.

    Args:
        histories: by the run's name, as `engine.fit` returns them.
    """
    figure, (loss_axis, accuracy_axis) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    lines, every_error = [], []
    for index, history in enumerate(histories.values()):
        style = {"color": f"C{index % 10}", "marker": "osv^D"[index % 5], "markersize": 4}
        validated = [row for row in history if row.get("val_accuracy") is not None]
        val_epochs = [row["epoch"] for row in validated]
        errors = [100 * (1 - row["val_accuracy"]) for row in validated]
        loss_axis.plot([row["epoch"] for row in history], [row["loss"] for row in history], **style)
        loss_axis.plot(val_epochs, [row["val_loss"] for row in validated], ":", **style)
        lines += accuracy_axis.plot(val_epochs, errors, clip_on=False, **style)
        every_error += errors
    loss_axis.set_yscale("log")
    loss_axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    loss_axis.yaxis.set_major_formatter("{x:g}")
    loss_axis.set_ylabel("cross-entropy loss")
    kinds = [plt.Line2D([], [], color="black", linestyle=style) for style in "-:"]
    loss_axis.legend(kinds, ["training", "validation"])

    # 0 has no logarithm: from the smallest error that there is, the axis goes on linearly to it.
    smallest = min((error for error in every_error if error > 0), default=1.0)
    accuracy_axis.set_yscale("symlog", linthresh=smallest, linscale=0.4)
    ticks = SymmetricalLogLocator(base=10, linthresh=smallest, subs=(1, 2, 3, 5, 7))
    accuracy_axis.yaxis.set_major_locator(ticks)
    accuracy_axis.yaxis.set_major_formatter(lambda error, _: f"{100 - error:g}")
    accuracy_axis.set_ylim(1.1 * max([smallest, *every_error]), min([0.9 * smallest, *every_error]))
    accuracy_axis.set_ylabel("validation accuracy (%)")
    for axis in (loss_axis, accuracy_axis):
        axis.set_xlabel("epoch")
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    names = [name.replace("$", r"\$") for name in histories]  # else what is between is set as math
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 5))
    return figure


def draw_confusion(matrix: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix, (true, predicted) counts; colour shows the share of a row."""
    count = len(classes)
    side = max(4.0, 0.3 * count + 2)
    figure, axis = plt.subplots(figsize=(side, side), layout="constrained")
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for true, predicted in zip(*np.nonzero(matrix), strict=True):
        colour = "white" if shares[true, predicted] > 0.5 else "black"
        axis.text(
            predicted, true, matrix[true, predicted],
            ha="center", va="center", color=colour, fontsize=7,
        )  # fmt: skip
    axis.set_xticks(range(count), classes, rotation=90, fontsize=8)
    axis.set_yticks(range(count), classes, fontsize=8)
    axis.set_xlabel("predicted class")
    axis.set_ylabel("true class")
    axis.set_title(f"{np.trace(matrix):,} of {matrix.sum():,} images read correctly")
    return figure


def draw_contact_sheet(
    images: np.ndarray, captions: Sequence[str], title: str, columns: int = 8
) -> Figure:
    """Draw images, (N, H, W, 3) uint8 or [0, 1], in a grid with a caption each."""
    rows = max(1, -(-len(images) // columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.5 * columns, 1.85 * rows + 0.4), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    figure.suptitle(title)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image, interpolation="nearest")
        axis.set_title(caption, fontsize=7)
    return figure


def draw_grid(
    cells: Sequence[Sequence[np.ndarray]],
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    side: float = 1.5,
    notes: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Draw rows of images, (H, W, 3) in [0, 1], with a label a row and a column.

    Args:
        side: of an image, in inches.
        notes: a line below each image.
    """
    shape = (len(cells), len(columns))
    figure, axes = plt.subplots(
        *shape, figsize=(side * shape[1] + 0.6, (side + 0.15) * shape[0] + 1), layout="constrained",
        squeeze=False,
    )  # fmt: skip
    figure.suptitle(title)
    for axis, image in zip(axes.flat, (image for row in cells for image in row), strict=True):
        axis.imshow(np.clip(image, 0, 1), interpolation="nearest")  # sums may round to above 1
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for axis, label in zip(axes[:, 0], rows, strict=True):
        axis.set_ylabel(label, fontsize=9)
    for axis, label in zip(axes[0], columns, strict=True):
        axis.set_title(label, fontsize=9 if side > 1.5 else 7.5)
    for axis, note in zip(axes.flat, (note for row in notes or () for note in row), strict=False):
        axis.set_xlabel(note, fontsize=9)
    return figure
