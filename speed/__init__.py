"""What benchmark.py measures: a module a section.

Each has its contestants and what is said of them:

    contestants(folder, runtime) -> {key: turn}    # made once; turn() works, and returns a figure
    report(figures, runtime) -> str                # of {key: [figure of each round]}; Markdown

A figure is a rate where more is better, or seconds.
"""

import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from lab.console import progress

SECTIONS = (
    "training", "testing", "mnist", "attention", "saliency", "style", "detection", "segmentation",
    "video", "diffusion", "start",
)  # fmt: skip

Turn = Callable[[], float]
Figures = Mapping[Hashable, Sequence[float]]


def take_turns(contestants: Mapping[Hashable, Turn], rounds: int) -> dict[Hashable, list[float]]:
    """Return each contestant's figures; all have their turn in every round.

    A machine whose speed drifts is fair to all then.
    """
    figures: dict[Hashable, list[float]] = {key: [] for key in contestants}
    for _ in progress(range(rounds), label="rounds"):
        for key, turn in contestants.items():
            figures[key].append(turn())
    return figures


def ratio(figures: Figures, over: Hashable, under: Hashable) -> str:
    """Return the median of the ratios round by round."""
    quotients = [a / b for a, b in zip(figures[over], figures[under], strict=True)]
    return f"{statistics.median(quotients):.2f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def pair_table(title: str, figures: Figures, own: str, plain: str) -> str:
    """Return a table of two contestants: medians of images/s, and the ratio to the second."""
    return table(
        [title, "images/s", "ratio"],
        [
            [key, f"{statistics.median(figures[key]):,.0f}", ratio(figures, key, plain)]
            for key in (own, plain)
        ],
    )
