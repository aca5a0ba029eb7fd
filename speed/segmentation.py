"""Labelling pixels: the bare step on one resident batch, the project's loop, and a whole frame."""

import statistics
import time
from collections.abc import Hashable
from pathlib import Path

import torch

from lab.runtime import Runtime, place, to_device
from lab.settings import TrainSettings
from networks import fold
from speed import Figures, Turn, ratio, table
from speed.training import bare_turns, own_turns
from tasks.segmentation import FIELD, Segmentation
from tasks.segmentation.augment import Windows
from tasks.segmentation.data import make_loader, read_split
from tasks.segmentation.networks import build_network, make_configs
from tasks.segmentation.segmenter import Segmenter
from world.street import SIZE, draw_street_dataset

NETWORK = "res_unet"
PICTURES = 16  # drawn
WINDOWS = 8  # of each, an epoch
FRAMES = 8  # a turn
FRAME = (360, 480)  # height, width
BARE, OWN, WHOLE = "bare step", "train.py --augment", "frame"


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the two ways to train, and the labelling of frames."""
    root = folder / "streets"
    draw_street_dataset(root, splits={"train": PICTURES, "val": 1}, size=SIZE)
    split = read_split("street", root, "train")
    settings = TrainSettings(**FIELD.defaults)
    windows = Windows(each=WINDOWS)
    loader = make_loader(split, settings.batch_size, windows, device=runtime.device)
    task = Segmentation(split.classes)
    return {
        BARE: bare_turns(network(task), loader, runtime, task, settings),
        OWN: own_turns(network(task), loader, runtime, task, settings),
        WHOLE: frame_turns(network(task), runtime),
    }


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of windows/s and their ratio, and seconds a frame."""
    rows = [
        [name, f"{statistics.median(figures[name]):,.1f}", ratio(figures, name, BARE)]
        for name in (OWN, BARE)
    ]
    height, width = FRAME
    seconds = statistics.median(figures[WHOLE])
    size = "x".join(map(str, reversed(Windows().size)))
    return (
        table([f"pixels, {NETWORK}, windows of {size}", "windows/s", "ratio"], rows)
        + f"\n\nA frame of {width}x{height}: {seconds:.3f} s"
    )


def network(task: Segmentation) -> Segmenter:
    """Return the network under test; the same weights each time."""
    torch.manual_seed(0)
    return build_network(NETWORK, make_configs(NETWORK, len(task.classes)))


def frame_turns(model: Segmenter, runtime: Runtime) -> Turn:
    """A frame at a time, as test.py sees it: seconds each."""
    model = place(fold(model), runtime)
    image = to_device(torch.rand(1, 3, *FRAME) * 2 - 1, runtime)

    @torch.inference_mode()
    def turn() -> float:
        began = time.perf_counter()
        for _ in range(FRAMES):
            with runtime.autocast():
                model.segment(image).argmax(1)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / FRAMES

    turn()  # warm up
    return turn
