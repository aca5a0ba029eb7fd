"""How contestants are timed: by turns, so that a machine whose speed drifts is fair to all."""

import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from lab.console import UsageError, progress
from lab.runtime import Runtime, start
from speed import BY_TASK, SECTIONS, SpeedFlags
from tasks import TASKS

Turn = Callable[[], float]
Figures = Mapping[Hashable, Sequence[float]]


def measure(flags: SpeedFlags) -> None:
    """Measure the sections that flags ask for, and print what is said of each."""
    if flags.task and flags.only not in (None, *BY_TASK):
        raise UsageError(f"--only {flags.only} is not measured by task: leave out --task")
    runtime = start(flags.device)
    print(
        f"torch {torch.__version__}, {runtime.device.type}, {torch.get_num_threads()} threads, "
        f"{runtime.precision}, {flags.rounds} rounds",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        for name in [flags.only] if flags.only else BY_TASK if flags.task else SECTIONS:
            section = import_module(f"speed.{name}")
            turns = section.contestants(Path(folder), runtime, flags.task or TASKS)
            print(f"\n{section.report(take_turns(turns, flags.rounds))}", flush=True)


def take_turns(contestants: Mapping[Hashable, Turn], rounds: int) -> dict[Hashable, list[float]]:
    """Return each contestant's figures; all have their turn in every round."""
    figures: dict[Hashable, list[float]] = {key: [] for key in contestants}
    for _ in progress(range(rounds), label="rounds"):
        for key, turn in contestants.items():
            figures[key].append(turn())
    return figures


def timed(work: Callable[[], Any], runtime: Runtime, count: int = 1) -> Turn:
    """Return the turn of some work on `count` inputs: the seconds that one of them takes."""

    def turn() -> float:
        began = time.perf_counter()
        work()
        runtime.wait_for_device()
        return (time.perf_counter() - began) / count

    work()  # warm up: kernels are chosen on the first steps
    return turn


def rate(figures: Figures, key: Hashable) -> str:
    """Return the median of inputs a second; nothing of who has not taken part."""
    if key not in figures:
        return ""
    inputs = 1 / statistics.median(figures[key])
    return f"{inputs:,.0f}" if inputs >= 100 else f"{inputs:.2f}"


def ratio(figures: Figures, over: Hashable, under: Hashable) -> str:
    """Return the median of the ratios round by round; nothing where one has not taken part."""
    if not {over, under} <= figures.keys():
        return ""
    quotients = [a / b for a, b in zip(figures[over], figures[under], strict=True)]
    return f"{statistics.median(quotients):.2f}"


def compared(title: str, figures: Figures) -> str:
    """Return a table of medians; the last contestant is what the others are held against."""
    *_, last = figures
    rows = [
        [
            str(key), f"{statistics.median(figures[key]):.3g}", rate(figures, key),
            ratio(figures, last, key), ratio(figures, key, last),
        ]
        for key in figures
    ]  # fmt: skip
    return table([title, "seconds", "a second", "times as fast", "share of seconds"], rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
