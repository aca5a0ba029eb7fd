"""An epoch of every task: the bare step, the project's loop, the loop as usually written."""

import time
from collections.abc import Hashable, Iterable
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader

from lab.engine import EpochState, train_one_epoch
from lab.learner import Learner
from lab.runtime import Runtime, to_device
from speed.cases import AUGMENTED, BARE, KINDS, OWN, PLAIN, cases_of
from speed.turns import Figures, Turn, rate, ratio, table, timed


def contestants(folder: Path, runtime: Runtime, tasks: Iterable[str]) -> dict[Hashable, Turn]:
    """Return the ways to train each case, each from the same weights."""
    return {
        (kind, name): WAYS[kind](case.learner(runtime), loader)
        for task in tasks
        for name, case in cases_of(task, folder, runtime).items()
        for kind, loader in case.loaders.items()
    }


def report(figures: Figures) -> str:
    """Return medians of inputs a second, and ratios."""
    quotients = (OWN, BARE), (AUGMENTED, BARE), (OWN, PLAIN)
    rows = []
    for name in dict.fromkeys(name for _, name in figures):
        rates = [rate(figures, (kind, name)) for kind in KINDS]
        # Of rates, which are one over seconds.
        ratios = [ratio(figures, (under, name), (over, name)) for over, under in quotients]
        rows.append([name, *rates, *ratios])
    head = ["training, inputs a second", *KINDS, "b/a", "b augmented/a", "b/c"]
    return table(head, rows)


def bare_turns(learner: Learner, loader: DataLoader) -> Turn:
    """(a) Forward, backward and update on the loader's first batch, which stays where it is."""
    inputs, targets = to_device(next(iter(loader)), learner.runtime)
    steps = len(loader)

    def work() -> None:
        learner.train()
        for _ in range(steps):
            learner.step(inputs, targets)

    return timed(work, learner.runtime, steps * len(inputs))


def own_turns(learner: Learner, loader: DataLoader) -> Turn:
    """(b) The project's own epoch, loader and all."""

    def turn() -> float:
        state = EpochState()
        train_one_epoch(learner, loader, state)
        return state.seconds / state.trained

    return turn


def plain_turns(learner: Learner, loader: DataLoader) -> Turn:
    """(c) The loop as it is usually written, fp32; the start of the loader is not counted."""
    device = learner.runtime.device
    network = learner.network.to(memory_format=torch.contiguous_format)
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    loss_function = nn.CrossEntropyLoss()

    def turn() -> float:
        network.train()
        batches = iter(loader)
        next(batches)  # when it is there, the workers run
        began, count, total_loss = time.perf_counter(), 0, 0.0
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            loss = loss_function(network(images), labels)
            loss.backward()
            optimizer.step()
            total_loss += loss.item()
            count += len(labels)
        return (time.perf_counter() - began) / count

    return turn


WAYS = {BARE: bare_turns, OWN: own_turns, AUGMENTED: own_turns, PLAIN: plain_turns}
