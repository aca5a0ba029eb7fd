"""Pictures more than one script makes, and the one way a figure is saved and shown."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from console import LabError, say


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


def draw_curves(history: Sequence[dict]) -> Figure:
    """Draw loss and any validation accuracy over epochs; `history` as `engine.fit` returns it."""
    figure, loss_axis = plt.subplots(figsize=(6.4, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    validated = [row for row in history if row["val_accuracy"] is not None]
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
        best = int(np.argmax(accuracies))
        loss_axis.set_title(f"best: {accuracies[best]:.2f} % in epoch {val_epochs[best]}")
    loss_axis.legend(handles=lines, loc="center right")
    return figure


def save_curves(path: Path, history: Sequence[dict]) -> None:
    """Draw the curves of `draw_curves` into a file, without opening a window."""
    figure = draw_curves(history)
    save_figure(figure, path)
    plt.close(figure)


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
