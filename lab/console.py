"""What every script says and how it ends: one-line errors, the log, the progress bar.

Nothing heavy is imported here, so that `--help` and a wrong flag answer at once; scripts import
torch after their arguments are read.
"""

import gc
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO
from unicodedata import east_asian_width

from tqdm import tqdm


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


def launch() -> str | None:
    """Return what tells a launch of torchrun, with all its restarts, from others; None alone.

    The name that it was given. Without one, as torch before 2.12 leaves a launch on one machine,
    torchrun itself: it is the process that started this one, and the ones before.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    if name == "none":
        is_whole = os.environ.get("GROUP_WORLD_SIZE") == "1"
        name = f"{socket.gethostname()}-{os.getppid()}" if is_whole else None
    return name


def may_go_on() -> bool:
    """True where a launch may have begun a run before: it starts again, or has a name to keep.

    In a container the next torchrun may well have the number of the one before.
    """
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    return restarts > 0 or os.environ.get("TORCHELASTIC_RUN_ID", "none") != "none"


_log: Path | None = None  # of the run at hand
_unlogged: list[str] = []  # what was said since there was one


def keep_log(path: Path | None) -> None:
    """Append to a file what is said from now on, and what was since None was given last."""
    global _log
    _log, lines = path, _unlogged.copy()
    _unlogged.clear()
    if path is not None and lines:
        _append(lines)


def _append(lines: Iterable[str]) -> None:
    """Put lines into the log that is kept, or keep them for the next one."""
    if _log is None:
        _unlogged.extend(lines)
        return
    with suppress(OSError), _log.open("a", encoding="utf-8", errors="backslashreplace") as log:
        log.writelines(f"{line}\n" for line in lines)


def say(text: str, file: TextIO | None = None) -> None:
    """Print a line, once however many processes run, and put it into the log that is kept."""
    if process_rank()[0] > 0:
        return
    print(text, file=file, flush=True)
    _append([text])


def command(script: str, *arguments: object) -> str:
    """Return a command line that can be pasted into a shell."""
    return shlex.join(["python", script, *map(str, arguments)])


def counted(count: int, things: str) -> str:
    """Return a number of things, given in the plural, as it is said: `1 step`, `2 steps`."""
    if count == 1:
        things = things.removesuffix("es" if things.endswith(("xes", "sses")) else "s")
    return f"{count:,} {things}"


def letters_in(line: str) -> int:
    """Return how many letters a line is long; Chinese ones are as wide as two."""
    return len(line) + sum(east_asian_width(letter) in "WF" for letter in line)


def padded(name: str, width: int) -> str:
    """Return a name with spaces behind it, for a column of so many letters."""
    return name + " " * (width - letters_in(name))


def as_text(figure: float) -> str:
    """Return a figure as it is said: a share, from 0 to 1, in per cent, anything else as it is."""
    return f"{figure:.2%}" if 0 <= figure <= 1 else f"{figure:.4g}"


def is_out_of_memory(error: RuntimeError) -> bool:
    """True of torch's error where a GPU's memory is full: the words of CUDA as of Apple's."""
    return "out of memory" in str(error)


def run(main: Callable[[], None]) -> None:
    """Call a script's `main` and end the process the way every script here ends."""
    keep_log(None)
    # What torch has no operation of on Apple's GPU then runs on the CPU; read when it is imported.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
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
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        instead = "give it less at a time, as by --batch_size or --size, or take --device cpu"
        say(f"{script}: error: the GPU's memory is full: {instead}", sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        say(f"{script}: interrupted", sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output (head, less) has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


LINE_EVERY = 30.0  # seconds between two lines of progress where there is no terminal
LINE = "{desc}: {n_fmt} of {total_fmt}{postfix}, {elapsed} gone, {remaining} left"
MOVES = re.compile(r"\x1b\[\w|[\r\n]")  # of a cursor that there is not


class _Lines:
    """A file that says what a progress bar writes, line by line."""

    def write(self, text: str) -> None:
        if line := MOVES.sub("", text).strip():
            say(line)

    def flush(self) -> None:
        pass


def progress(steps: Iterable | None = None, *, total: int | None = None, label: str = ""):
    """The one progress bar: wraps an iterable, or counts to `total` through `.update(n)`.

    By the main process only, and removed when done. Where there is no terminal, what takes long
    says a line each half minute, in the log too.
    """
    hidden = process_rank()[0] > 0
    options = {"total": total, "desc": label, "leave": False, "disable": hidden}
    if sys.stderr is not None and sys.stderr.isatty():
        return tqdm(steps, **options, dynamic_ncols=True)
    return tqdm(
        steps, **options, file=_Lines(), bar_format=LINE, delay=LINE_EVERY, mininterval=LINE_EVERY,
        miniters=1,  # else a thread of its own sees to it that there is a line in time, and another
    )  # fmt: skip
