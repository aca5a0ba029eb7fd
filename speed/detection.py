"""Searching a street photograph: our detectors and one of torchvision's, seconds each."""

import statistics
import time
from collections.abc import Hashable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab.runtime import Runtime, place, to_device
from networks import fold
from speed import Figures, Turn, ratio, table
from tasks.detection.detector import Detector
from tasks.detection.found import as_input
from tasks.detection.networks import NETWORKS, build_network, make_configs
from world.faces import FACES
from world.street import draw_street

TORCHVISION = "fasterrcnn_mobilenet_v3_large_320_fpn"
SIZE = (736, 1280)  # height, width: those of the sign detection benchmark
SEARCHES = 4  # a turn


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the search of one drawn street by each network, as new, which takes as long."""
    picture = as_input(draw_street(np.random.default_rng(0), SIZE).picture.copy())  # writable
    turns = {}
    for name in (*NETWORKS, TORCHVISION):
        torch.manual_seed(0)
        model = build_network(name, make_configs(name, len(FACES), signs=True)).eval()
        turns[name] = search(fold(model) if name in NETWORKS else model, picture, runtime)
    return turns


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of seconds, and how much longer torchvision's takes."""
    rows = [
        [name, f"{statistics.median(figures[name]):.3f}", ratio(figures, TORCHVISION, name)]
        for name in figures
    ]
    height, width = SIZE
    return table([f"a photograph of {width}x{height}", "seconds", "torchvision's over it"], rows)


def search(model: Detector, picture: Tensor, runtime: Runtime) -> Turn:
    """All from the picture to its boxes, as test.py does it."""
    model = place(model, runtime)
    image = to_device(picture, runtime)

    @torch.inference_mode()
    def turn() -> float:
        began = time.perf_counter()
        for _ in range(SEARCHES):
            with runtime.autocast():
                model.detect(image)
        if runtime.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / SEARCHES

    turn()  # warm up: kernels are chosen on the first search
    return turn
