"""The lab report: runs what is missing, reads what is there, says what the numbers carry.

`work` runs scripts and goes on where they were stopped, `runs` reads the files they leave, `claims`
turns figures into sentences, `signs` and `other_tasks` make chapters of `blocks`, `document` a
report of chapters, which `markdown`, `html` and `latex` write. Nothing of torch is imported here,
so that flags are read before it is.
"""

from dataclasses import dataclass
from pathlib import Path

import tasks
from lab.flags import flag, positive_int

EPOCHS, QUICK = 10, 2  # of each run
LANGUAGES = ("en", "zh")
MEASURED = tuple(name for name in tasks.TASKS if tasks.load(name).measured)
CHAPTERS = ("signs", *(name for name in MEASURED if name != tasks.DEFAULT), "answers")


@dataclass(frozen=True)
class ReportFlags:
    """What report.py is asked for."""

    data_root: Path | None = flag(
        None, Path, "of the signs (default: the built-in ones, drawn into data)"
    )
    epoch: int | None = flag(None, positive_int, f"epochs of each run (default {EPOCHS})")
    quick: bool = flag(
        False, bool, f"{QUICK} epochs; a full report goes on from there", undone=False
    )
    seeds: int = flag(1, positive_int, "runs of each kind")
    lang: str = flag("en", LANGUAGES, "language")
    only: tuple[str, ...] = flag(
        CHAPTERS, CHAPTERS, f"of {', '.join(CHAPTERS)} (default: all)", nargs="+", metavar="CHAPTER"
    )
    ckpt_path: Path = flag(
        Path("checkpoints/report"), Path, "folder of the signs' runs; those of other tasks are "
        "beside it",
    )  # fmt: skip
    save_dir: Path = flag(Path("report"), Path, "folder of the report")
