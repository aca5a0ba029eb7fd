"""What test.py and compare.py print and draw of clips: mistakes, clips of one's own, a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import wrap

import numpy as np
import torch
from PIL import Image

from lab.console import LabError, counted, padded, say
from lab.drawing import draw, publish
from lab.fetching import name_of
from lab.folders import printable
from lab.images import say_left_out
from lab.pictures import Grid, Picture, Tile, longest_line, shorten
from lab.registry import build
from tasks import Compared, TestFlags
from tasks.classification.results import report_classes, say_likeliest
from tasks.comparing import cell, markdown_table
from tasks.trained import Trained
from tasks.video.data import ClipDataset, as_input, frames_and_stride
from tasks.video.files import clip_files, read_clips
from tasks.video.networks import NETWORKS, count_multiply_adds, count_parameters
from tasks.video.objective import VideoMeter

SHEET = 12  # clips on a sheet
READ_AT_ONCE = 64  # clips of one's own that are held in memory
SHOWN_FRAMES = 16  # of each
LINE = 10  # letters of a row's label


def spread(frames: int, most: int = SHOWN_FRAMES) -> list[int]:
    """Return the places of at most so many frames, spread over all of them."""
    return np.linspace(0, frames - 1, min(frames, most)).round().astype(int).tolist()


def row_label(name: str, read: str = "") -> str:
    """Say what a clip shows, or its name, and what it is taken for where that is another thing."""
    texts = (name, f"read as {read}" * bool(read))
    return "\n".join(line for text in texts for line in wrap(text.replace("_", " "), LINE))


def strips(clips: Sequence[np.ndarray], rows: Sequence[str]) -> Grid:
    """Return clips, (T, H, W, 3) each, as rows of frames with a label each."""
    places = spread(len(clips[0]))
    tiles = [[Tile(clip[t]) for t in places] for clip in clips]
    return Grid(tiles, rows, [f"frame {t}" for t in places], side=1.0)


def report(trained: Trained, flags: TestFlags, meter: VideoMeter, dataset: ClipDataset) -> None:
    """Print a table of classes and the accuracy, and draw what was confused with what."""

    def strip(index: int) -> Image.Image:
        return Image.fromarray(np.concatenate(dataset.frames(index), 1))

    def lay_out(indices: list[int], pairs: list[tuple[str, str]]) -> Grid:
        return strips(list(map(dataset.frames, indices)), [row_label(*pair) for pair in pairs])

    report_classes(trained, flags, meter, dataset, "clips", strip, lay_out, SHEET)
    if meter.frame_accuracy is not None:
        say(f"accuracy of each frame by itself: {meter.frame_accuracy:.2%}")


def read_pictures(trained: Trained, flags: TestFlags) -> None:
    """Print the likeliest classes of clips, and draw those on a sheet.

    Raises:
        LabError: none can be read.
    """
    files, classes, runtime = clip_files(flags.image), trained.classes, trained.runtime
    width = longest_line(printable(path.name) for path in files)
    shown, rows, problems = [], [], {}
    for start in range(0, len(files), READ_AT_ONCE):
        some = files[start : start + READ_AT_ONCE]
        clips, wrong = read_clips(some, *frames_and_stride(trained), "reading clips")
        problems |= wrong
        names = [path.name for path in some if path not in wrong]
        for name, clip in zip(names, clips, strict=True):
            inputs = as_input(torch.from_numpy(clip)[None]).to(runtime.device)
            with torch.inference_mode(), runtime.autocast():
                confidences = trained.network(inputs).float().softmax(1)[0]
            say_likeliest(padded(printable(name), width), confidences, classes)
            rows.append(row_label(shorten(name), classes[int(confidences.argmax())]))
        shown += clips[: SHEET - len(shown)]
    say_left_out(Path("."), len(files), problems)
    if not rows:
        raise LabError("none of the clips can be read")
    title = f"What the network makes of {len(shown)} of {counted(len(rows), 'clips')}"
    grid = strips(shown, rows[: len(shown)])
    picture = Picture(f"clips_{name_of(flags.image)}.jpg", title, (grid,))
    publish(draw(picture), trained.results / picture.path)


def table_of_networks(runs: Mapping[str, Compared]) -> list[str]:
    """Return the lines of a Markdown table with a row a network and a column a data set.

    What a network costs is told of clips as long as most runs have them, how far it sees of the
    longest. Of several runs (seeds) of one network on one data set the mean, and the deviation of
    a run from it.
    """
    kinds = dict.fromkeys(map(kind_of, runs.values()))
    lengths = Counter(kind_of(run)[1] for run in runs.values())
    usual, longest = lengths.most_common(1)[0][0], max(lengths)
    columns = [
        "network", "parameters", f"multiply-adds a clip of {usual} frames", "training clips/s",
        f"temporal reach in {longest} frames",
        *(f"{dataset}, {frames} frames" for dataset, frames in kinds),
    ]  # fmt: skip
    rows = []
    for name in dict.fromkeys(run.facts["network"] for run in runs.values()):
        own = [run for run in runs.values() if run.facts["network"] == name]
        nearest = min(own, key=lambda run: abs(kind_of(run)[1] - usual)).facts["configs"]
        network, longer = (
            build(NETWORKS, name, nearest | {"frames": frames}) for frames in (usual, longest)
        )
        epochs = [row for run in own if kind_of(run)[1] == usual for row in run.history]
        tested = [
            [run.tested for run in own if kind_of(run) == kind and run.tested is not None]
            for kind in kinds
        ]
        rows.append([
            name, f"{count_parameters(network):,}",
            f"{count_multiply_adds(network) / 1e6:.1f} M",
            f"{np.median([row['images_per_second'] for row in epochs]):,.0f}" if epochs else "–",
            str(longer.reach), *map(mean_and_deviation, tested),
        ])  # fmt: skip
    return markdown_table(columns, rows)


def kind_of(run: Compared) -> tuple[str, int]:
    """Return the data set that a run was trained on, and the number of frames of its clips."""
    return run.facts["dataset"], run.facts["configs"]["frames"]


def mean_and_deviation(figures: Sequence[float]) -> str:
    """Return shares as text: their mean and, of several, the standard deviation of one."""
    mean = cell(float(np.mean(figures)) if figures else None)
    return mean if len(figures) < 2 else f"{mean} ± {100 * np.std(figures, ddof=1):.2f}"
