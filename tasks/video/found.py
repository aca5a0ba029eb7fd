"""What test.py and compare.py print and draw of clips: mistakes, clips of one's own, a table."""

from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from lab.console import LabError, as_text, say
from lab.folders import printable
from lab.images import say_left_out
from lab.pictures import Grid, Picture, Tile, draw, publish, shorten
from lab.runtime import Runtime
from tasks import Entry
from tasks.classification import (
    LIKELIEST,
    ClassificationMeter,
    report_classes,
    some_of,
    write_results,
)
from tasks.video.data import ClipDataset, as_input
from tasks.video.files import read_clips
from tasks.video.networks import build_network, count_multiply_adds, count_parameters

SHOWN = 12  # clips on a sheet
SHOWN_FRAMES = 16  # of each
LINE = 14  # letters of a row's label


# ---------------------------------------------------------------- strips


def spread(frames: int, most: int = SHOWN_FRAMES) -> list[int]:
    """Return the places of at most so many frames, spread over all of them."""
    return np.linspace(0, frames - 1, min(frames, most)).round().astype(int).tolist()


def row_label(classes: Sequence[str], label: int | None, read: int, name: str = "") -> str:
    """Say what a clip shows, or its name, and what it is taken for where that is another thing."""
    true = shorten(name) if label is None else classes[label]
    texts = [true] if read == label else [true, f"read as {classes[read]}"]
    lines = [line for text in texts for line in wrap(text.replace("_", " "), LINE)]
    return "\n".join(lines)


def strips(clips: Sequence[np.ndarray], rows: Sequence[str]) -> Grid:
    """Return clips, (T, H, W, 3) each, as rows of frames.

    Args:
        rows: a label of each.
    """
    places = spread(len(clips[0]))
    tiles = [[Tile(clip[t]) for t in places] for clip in clips]
    return Grid(tiles, rows, [f"frame {t}" for t in places], side=1.0)


# ---------------------------------------------------------------- the test split


def report_clips(args: Namespace, meter: ClassificationMeter, dataset: ClipDataset) -> None:
    """Print a table of classes and the accuracy, and draw what was confused with what."""
    report_classes(args, meter, dataset.classes, "clips")
    if args.save:
        save_results(
            dataset, meter.labels.tolist(), meter.predictions.tolist(), args.ckpt_path / "results"
        )


def save_results(
    dataset: ClipDataset, labels: list[int], predictions: list[int], folder: Path
) -> None:
    """Write every clip, its frames side by side, and a sheet of mistakes."""

    def strip(index: int) -> Image.Image:
        return Image.fromarray(np.concatenate(dataset.frames(index), 1))

    classes = dataset.classes
    wrong = write_results(folder, classes, labels, predictions, strip)
    say(f"Saved {len(dataset):,} clips in {folder}")
    if wrong:
        shown = some_of(wrong, SHOWN)
        rows = [row_label(classes, label, read) for _, label, read in shown]
        title = f"{len(shown)} of {len(wrong)} mistakes among {len(dataset):,} clips"
        grid = strips([dataset.frames(index) for index, _, _ in shown], rows)
        publish(draw(Picture("mistakes.jpg", title, (grid,))), folder / "mistakes.jpg")


# ---------------------------------------------------------------- clips of one's own


def read_files(
    args: Namespace, state: dict[str, Any], model: nn.Module, files: list[Path], runtime: Runtime
) -> None:
    """Print the likeliest classes of clips, and draw those on a sheet.

    Raises:
        LabError: none can be read.
    """
    frames, stride = state["configs"]["frames"], state["flags"]["stride"]
    classes, model = state["class_names"], model.eval()
    clips, problems = read_clips(files, frames, stride, "reading clips")
    say_left_out(Path("."), len(files), problems)
    readable = [path for path in files if path not in problems]
    if not readable:
        raise LabError("none of the clips can be read")
    width, rows = max(len(printable(path.name)) for path in readable), []
    for path, clip in zip(readable, clips, strict=True):
        inputs = as_input(torch.from_numpy(clip)[None]).to(runtime.device)
        with torch.inference_mode(), runtime.autocast():
            likeliest = model(inputs).float().softmax(1)[0].topk(min(LIKELIEST, len(classes)))
        pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
        named = [f"{classes[k]} {share:.1%}" for k, share in pairs]
        say(f"{printable(path.name):{width}}  {', '.join(named)}")
        rows.append(row_label(classes, None, int(likeliest.indices[0]), path.name))
    title = f"What the network makes of {min(SHOWN, len(rows))} of {len(rows)} clips"
    picture = Picture("clips.jpg", title, (strips(clips[:SHOWN], rows[:SHOWN]),))
    publish(draw(picture), args.ckpt_path / picture.path)


# ---------------------------------------------------------------- networks side by side


def table_of_networks(entries: Mapping[str, Entry]) -> list[str]:
    """Return the lines of a Markdown table with a row a network and a column a data set.

    What a network costs is told of clips as long as most runs have them, how far it sees of the
    longest. Of several runs (seeds) of one network on one data set the mean, and the deviation of
    a run from it.
    """
    runs = list(entries.values())
    lengths = Counter(entry.facts["configs"]["frames"] for entry in runs)
    usual, longest = lengths.most_common(1)[0][0], max(lengths)
    kinds = {(entry.facts["dataset"], entry.facts["configs"]["frames"]): None for entry in runs}
    columns = [
        "network",
        "parameters",
        f"multiply-adds a clip of {usual} frames",
        "training clips/s",
        f"temporal reach in {longest} frames",
        *(f"{dataset}, {frames} frames" for dataset, frames in kinds),
    ]
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    for name in {entry.facts["network"]: None for entry in runs}:
        own = [entry for entry in runs if entry.facts["network"] == name]
        nearest = min(own, key=lambda e: abs(e.facts["configs"]["frames"] - usual))
        model = build_network(name, nearest.facts["configs"] | {"frames": usual})
        far = build_network(name, nearest.facts["configs"] | {"frames": longest})
        speeds = [
            row["images_per_second"]
            for entry in own
            if entry.facts["configs"]["frames"] == usual
            for row in entry.history
        ]
        cells = [
            name,
            f"{count_parameters(model):,}",
            f"{count_multiply_adds(model) / 1e6:.1f} M",
            f"{np.median(speeds):,.0f}" if speeds else "–",
            str(far.reach),
        ]
        for kind in kinds:
            tested = [
                entry.tested
                for entry in own
                if (entry.facts["dataset"], entry.facts["configs"]["frames"]) == kind
                and entry.tested is not None
            ]
            cells.append(mean_and_deviation(tested))
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def mean_and_deviation(figures: Sequence[float]) -> str:
    """Return shares as text: their mean and, of several, the standard deviation of one."""
    if not figures:
        return "–"
    mean = as_text(float(np.mean(figures)))
    return mean if len(figures) == 1 else f"{mean} ± {100 * np.std(figures, ddof=1):.2f}"
