"""What every script says and how it ends: shared flags, one-line errors, the progress bar.

Only the standard library is imported here, so that `--help` and a wrong flag answer at once;
scripts import torch after their arguments are read.
"""

import argparse
import gc
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from lab.folders import DATA_ROOT, near

PRECISIONS = ("auto", "fp32", "bf16")


class LabError(Exception):
    """A failure a user can mend; its text is one line: what is wrong and what to do."""

    exit_code = 1


class UsageError(LabError):
    """A command line that cannot be meant."""

    exit_code = 2


def process_rank() -> tuple[int, int]:
    """Return this process's rank among those of torchrun, and their number; (0, 1) alone.

    A RANK that some other program left in the environment does not count: torchrun, like every
    launcher of `torch.distributed`, also says where the processes meet.
    """
    if {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return 0, 1


def is_main_process() -> bool:
    """True in a process of its own and in rank 0 under torchrun."""
    return process_rank()[0] == 0


_log: Path | None = None  # of the run at hand


def keep_log(path: Path | None) -> None:
    """Append to a file what is said from now on; to none if None."""
    global _log
    _log = path


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line, once however many processes run, and put it into the log that is kept."""
    if not is_main_process():
        return
    print(text, file=file, flush=True)
    if _log is not None:
        with suppress(OSError), _log.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(f"{text}\n")


def command(script: str, *arguments: object) -> str:
    """Return a command line that can be pasted into a shell."""
    return shlex.join(["python", script, *map(str, arguments)])


def as_text(figure: float) -> str:
    """Return a figure as it is said: a share, from 0 to 1, in per cent, anything else as it is."""
    return f"{figure:.2%}" if 0 <= figure <= 1 else f"{figure:.4g}"


def run(main: Callable[[], None]) -> None:
    """Call a script's `main` and end the process the way every script here ends."""
    keep_log(None)
    # Torch's import makes a quarter of a million objects, and all of them stay. Python would look
    # through them for garbage after every 700, which makes the import a fifth slower.
    gc.set_threshold(50_000)
    script = Path(sys.argv[0]).name
    for stream in (sys.stdout, sys.stderr):  # names of files may hold bytes that are no text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except LabError as error:
        say(f"{script}: error: {error}", sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say(f"{script}: interrupted", sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def progress(steps: Iterable | None = None, *, total: int | None = None, label: str = ""):
    """The one progress bar: wraps an iterable, or counts to `total` through `.update(n)`.

    Shown on a terminal only, by the main process only, and removed when done.
    """
    from tqdm import tqdm

    hidden = None if is_main_process() else True  # None: tqdm hides it where there is no terminal
    return tqdm(steps, total=total, desc=label, leave=False, disable=hidden, dynamic_ncols=True)


class Parser(argparse.ArgumentParser):
    """An argument parser that reports a wrong flag in one line, exit code 2."""

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog}: error: {message} (--help lists the flags)\n")


def lab_parser(description: str, *, data_root: Path | None = DATA_ROOT) -> Parser:
    """Return a parser that holds the flags every script shares.

    Args:
        description: the script's docstring; its first paragraph heads the help.
        data_root: default of `--data_root`; None where a checkpoint knows its own.
    """
    parser = Parser(description=description.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--ckpt_path",
        type=Path,
        default=Path("checkpoints/default"),
        help="folder of the run's checkpoints (default %(default)s)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), help="default: cuda when there is one, else cpu"
    )
    parser.add_argument(
        "--data_root",
        "--path",
        type=Path,
        default=data_root,
        help="folder of the data; of images: train/, val/ and test/, a folder a class in each "
        f"(default: {near(data_root) if data_root else 'the one the checkpoint was trained on'})",
    )
    add_show_flag(parser)
    return parser


def add_show_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--no_show`, which leaves out the windows that a script opens at its end."""
    parser.add_argument(
        "--no_show", action="store_true", help="save pictures without opening windows of them"
    )


def add_epoch_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--epoch N|best|last`, the choice of a checkpoint to read."""
    parser.add_argument(
        "--epoch",
        type=epoch_choice,
        help="checkpoint to read: an epoch's number, best or last (default: 10 of a run "
        "that ends with it, as the course's, else the best)",
    )


def add_precision_flag(parser: argparse.ArgumentParser) -> None:
    """Add `--precision`, of the forward pass of a trained network."""
    parser.add_argument(
        "--precision", choices=PRECISIONS, help="default: what the run was trained in"
    )


def epoch_choice(text: str) -> int | str:
    """Parse `best`, `last` or an epoch's number."""
    return text if text in ("best", "last") else positive_int(text)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    return _number(text, int, lambda value: value >= 1, "a whole number of at least 1")


def natural(text: str) -> int:
    """Parse an integer of at least 0."""
    return _number(text, int, lambda value: value >= 0, "a whole number of at least 0")


def seed(text: str) -> int:
    """Parse a seed that every generator takes."""
    return _number(text, int, lambda value: 0 <= value < 2**63, "a whole number from 0 to 2^63 - 1")


def share(text: str) -> float:
    """Parse a number above 0 and below 1."""
    return _number(text, float, lambda value: 0 < value < 1, "a number between 0 and 1")


def closed_share(text: str) -> float:
    """Parse a number from 0 to 1."""
    return _number(text, float, lambda value: 0 <= value <= 1, "a number from 0 to 1")


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    return _number(text, float, lambda value: 0 < value < math.inf, "a number above 0")


def non_negative_float(text: str) -> float:
    """Parse a finite number of at least 0."""
    return _number(text, float, lambda value: 0 <= value < math.inf, "a number of at least 0")


def fraction(text: str) -> float:
    """Parse a number of at least 0 and below 1."""
    return _number(text, float, lambda value: 0 <= value < 1, "a number from 0 to below 1")


def _number(text: str, kind: type, valid: Callable[[float], bool], expected: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not valid(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {expected}")
    return value
