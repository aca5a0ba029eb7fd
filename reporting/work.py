"""The scripts that a report needs run: what is done is not done again, what was stopped goes on."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.console import command, say
from lab.folders import PROJECT
from reporting import runs

# Seconds on two cores, for the time that is left: of starting and ending, of an epoch.
START, EPOCH = 6.0, 12.0


@dataclass(frozen=True)
class Training:
    """A run of train.py.

    Attributes:
        flags: of it, besides those below.
        epochs: that it must have; one that has more is done.
    """

    folder: Path
    flags: tuple[str, ...]
    epochs: int

    def command(self) -> tuple[str, ...] | None:
        """Return what is left to do: nothing, to go on, or all of it."""
        finished = self.finished()
        if finished >= self.epochs:
            return None
        last = ("--epoch", str(self.epochs), "--no_show")
        if finished or (self.folder / "ckpt_interrupted.pth").is_file() and self._is_ours():
            return ("train.py", "--resume", str(self.folder), *last)
        return ("train.py", "--ckpt_path", str(self.folder), *self.flags, *last)

    def seconds(self) -> float:
        """Return about how long that takes."""
        return START + EPOCH * (self.epochs - self.finished())

    def finished(self) -> int:
        """Return the epochs that are done; 0 if the folder holds a run with other flags."""
        found = self.folder.glob("ckpt_epoch_*.pth")
        numbers = [path.stem.removeprefix("ckpt_epoch_") for path in found]
        epochs = [int(number) for number in numbers if number.isdecimal()]
        return max(epochs, default=0) if self._is_ours() else 0

    def _is_ours(self) -> bool:
        """True if the run in the folder was begun with these flags, and any number of epochs."""
        words = shlex.split(runs.command_of(self.folder))
        if "--epoch" in words:
            del words[(place := words.index("--epoch")) : place + 2]
        ours = command("train.py", "--ckpt_path", self.folder, *self.flags, "--no_show")
        return words == shlex.split(ours)


@dataclass(frozen=True)
class Making:
    """A script that makes files out of a run.

    Attributes:
        arguments: the script and its flags.
        makes: files that are there when it is done.
        run: folder of the run; a checkpoint that is newer than the files undoes them.
        estimate: seconds that it takes.
        is_right: whether the files hold what they should, where that is not sure.
    """

    arguments: tuple[str, ...]
    makes: tuple[Path, ...]
    run: Path | None
    estimate: float
    is_right: Callable[[], bool] = lambda: True

    def command(self) -> tuple[str, ...] | None:
        """Return what is left to do."""
        if not all(path.is_file() for path in self.makes) or not self.is_right():
            return self.arguments
        oldest = min(path.stat().st_mtime for path in self.makes)
        needs = self.run.glob("ckpt_epoch_*.pth") if self.run else ()
        return self.arguments if any(path.stat().st_mtime > oldest for path in needs) else None

    def seconds(self) -> float:
        """Return about how long that takes."""
        return self.estimate


Step = Training | Making


def run_steps(steps: Sequence[Step]) -> list[str]:
    """Run what is not done, and say how far it is; return the commands that failed.

    Raises:
        KeyboardInterrupt: stopped; the script at hand has saved what it had.
    """
    # What is done is found out anew before each step: it may rest on one before it.
    left = {number: step.seconds() for number, step in enumerate(steps) if step.command()}
    spent = estimated = 0.0
    failed = []
    for number, step in enumerate(steps):
        arguments = step.command()
        if arguments is None:
            continue
        expected = left.pop(number, step.seconds())
        pace = spent / estimated if spent > 20 else 1.0
        rest = pace * (expected + sum(left.values()))
        shown = command(*arguments)
        say(f"[{number + 1}/{len(steps)}] {shown} (about {in_words(rest)} left)")
        began = time.perf_counter()
        if run_script(arguments):
            failed.append(shown)
        spent, estimated = spent + time.perf_counter() - began, estimated + expected
    return failed


def in_words(seconds: float) -> str:
    """Return a time that nobody should rely on to the second."""
    return f"{seconds / 60:.0f} min" if seconds > 90 else f"{max(10, round(seconds, -1)):.0f} s"


def run_script(arguments: Sequence[str]) -> int:
    """Run a script, print what it says a little to the right, and return its exit code."""
    name, *flags = arguments
    process = subprocess.Popen(
        [sys.executable, str(PROJECT / name), *flags],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # Ctrl-C comes here alone, and is passed on once
    )  # fmt: skip
    try:
        for line in process.stdout:
            say(f"    {line.rstrip()}")
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        for line in process.stdout:
            say(f"    {line.rstrip()}")
        process.wait()
        raise
    return process.wait()
