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

from lab import checkpoint
from lab.console import command, say
from lab.folders import PROJECT
from reporting import runs

# Seconds on two cores, for the time that is left: of starting and ending, of an epoch.
START, EPOCH = 6.0, 12.0


@dataclass(frozen=True)
class Training:
    """A run of train.py."""

    folder: Path
    flags: tuple[str, ...]  # besides those of folder and epochs
    epochs: int  # that it must have; one that has more is done

    def command(self) -> tuple[str, ...] | None:
        """Return what is left to do: nothing, to go on, or all of it."""
        finished = self.finished()
        if finished >= self.epochs:
            return None
        last = ("--epoch", str(self.epochs), "--no_show")
        if finished or (self.folder / checkpoint.INTERRUPTED).is_file() and self._is_ours():
            return ("train.py", "--resume", str(self.folder), *last)
        return ("train.py", "--ckpt_path", str(self.folder), *self.flags, *last)

    @property
    def seconds(self) -> float:
        """About how long that takes."""
        return START + EPOCH * (self.epochs - self.finished())

    def finished(self) -> int:
        """Return the epochs that are done; 0 if the folder holds a run with other flags."""
        return max(checkpoint.epochs(self.folder), default=0) if self._is_ours() else 0

    def _is_ours(self) -> bool:
        """True if the run in the folder was begun with these flags, and any number of epochs."""
        words = shlex.split(runs.command_of(self.folder))
        if "--epoch" in words:
            del words[(place := words.index("--epoch")) : place + 2]
        ours = command("train.py", "--ckpt_path", self.folder, *self.flags, "--no_show")
        return words == shlex.split(ours)


@dataclass(frozen=True)
class Making:
    """A script that makes files out of a run."""

    arguments: tuple[str, ...]  # the script and its flags
    makes: tuple[Path, ...]  # files that are there when it is done
    run: Path | None  # folder of the run; a checkpoint that is newer than the files undoes them
    seconds: float  # about how long it takes
    is_right: Callable[[], bool] = lambda: True  # whether the files hold what they should

    def command(self) -> tuple[str, ...] | None:
        """Return what is left to do."""
        if not all(path.is_file() for path in self.makes) or not self.is_right():
            return self.arguments
        oldest = min(path.stat().st_mtime for path in self.makes)
        needs = checkpoint.epochs(self.run).values() if self.run else ()
        return self.arguments if any(path.stat().st_mtime > oldest for path in needs) else None


Step = Training | Making


def run_steps(steps: Sequence[Step]) -> list[str]:
    """Run what is not done, and say how far it is; return the commands that failed.

    A kill ends it as Ctrl-C does.

    Raises:
        KeyboardInterrupt: stopped; the script at hand has saved what it had.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # What is done is found out anew before each step: it may rest on one before it.
    left = {number: step.seconds for number, step in enumerate(steps) if step.command()}
    spent = estimated = 0.0
    failed = []
    for number, step in enumerate(steps):
        arguments = step.command()
        if arguments is None:
            continue
        expected = left.pop(number, step.seconds)
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
        if os.name == "posix":  # on Windows it has gone to all of the console
            process.send_signal(signal.SIGINT)
        for line in process.stdout:
            say(f"    {line.rstrip()}")
        process.wait()
        raise
    return process.wait()
