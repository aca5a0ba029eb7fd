"""What benchmark.py measures: a module a section.

Each has its contestants and what is said of them:

    contestants(folder, runtime, tasks) -> {key: turn}    # made once; turn() works, and is a figure
    report(figures) -> str                    # of {key: [figure of each round]}; Markdown

A figure is the seconds that one input takes, or bytes. `cases` has what is trained, by task, for
`loop` and `inputs`; `turns` how things are timed.
"""

from dataclasses import dataclass

from lab import flags
from lab.flags import flag, positive_int
from tasks import TASKS

SECTIONS = ("loop", "inputs", "attention", "saliency", "start")
BY_TASK = SECTIONS[:2]


@dataclass(frozen=True)
class SpeedFlags:
    """What benchmark.py is asked for."""

    rounds: int = flag(5, positive_int, "turns of each contestant")
    only: str | None = flag(None, SECTIONS, "measure this section alone (default: all)")
    task: list[str] | None = flag(
        None, TASKS, f"in {' and '.join(BY_TASK)}, measure these alone of {', '.join(TASKS)}",
        nargs="+", metavar="NAME",
    )  # fmt: skip
    device: str | None = flags.device()
