"""The test of the sign classifier: in batches, and image by image; images a second."""

import time
from collections.abc import Hashable
from itertools import islice
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from datasets import get_data_loader
from lab import engine
from lab.runtime import Runtime
from speed import Figures, Turn, pair_table
from speed.training import DEFAULTS, classifier, draw_signs, plain_loader, prepare
from tasks.classification import Classification

SINGLES = 260  # images that are tested one by one
OWN, PLAIN = "test.py", "batch_size=1"


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the two, on the signs that training draws."""
    draw_signs(folder)
    model, _ = prepare(classifier(), DEFAULTS, runtime)
    batches = get_data_loader(folder, "test", 32, 256, device=runtime.device)
    singles = plain_loader(folder, "test", 1, num_workers=0)
    return {OWN: own_turns(model, batches, runtime), PLAIN: plain_turns(model, singles, runtime)}


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of images/s, and the ratio."""
    return pair_table("testing", figures, OWN, PLAIN)


def own_turns(model: nn.Module, loader: DataLoader, runtime: Runtime) -> Turn:
    """The project's evaluation, as test.py runs it."""

    def turn() -> float:
        meter = Classification().meter()
        began = time.perf_counter()
        engine.evaluate(model, meter, loader, runtime)
        return len(meter.labels) / (time.perf_counter() - began)

    return turn


def plain_turns(model: nn.Module, loader: DataLoader, runtime: Runtime) -> Turn:
    """The assignment's: batch_size=1, each image read when its turn comes."""

    def turn() -> float:
        model.eval()
        began, count, correct = time.perf_counter(), 0, 0
        with torch.no_grad():
            for images, labels in islice(loader, SINGLES):
                prediction = model(images.to(runtime.device)).argmax(-1)
                correct += int(prediction.cpu() == labels)
                count += 1
        return count / (time.perf_counter() - began)

    return turn
