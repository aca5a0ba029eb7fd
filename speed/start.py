"""From pressing return to the first training step, on the built-in data, once decoded; seconds.

    python train.py --bn --stn

Beside it stand the import of torch alone, which nothing can be faster than, and an answer that
needs no torch.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path

from lab.runtime import Runtime
from speed.turns import Figures, Turn, compared
from world import signs

PROJECT = Path(__file__).parent.parent
HELP, TORCH, STEP = "`train.py --help`", "`import torch`", "`train.py --bn --stn`, one step"

# train.py as it is, but for its end: when an optimizer has made a step. `sys.argv` is its own.
# The step is waited for on its way through `run`, so that nothing is imported earlier than there.
UNTIL_FIRST_STEP = """
import os, sys
from lab.console import run
import train

def main():
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    def end(*_):
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        print("first step done", flush=True)
        os._exit(0)

    register_optimizer_step_post_hook(end)
    train.main()

run(main)
"""


def contestants(folder: Path, runtime: Runtime, tasks: Iterable[str]) -> dict[Hashable, Turn]:
    """Return the three; the built-in data set is drawn whole."""
    data = folder / "built_in"
    signs.draw_dataset(data)
    first_step = first_step_turns(
        ["--bn", "--stn", "--data_root", str(data), "--device", runtime.device.type]
    )
    first_step()  # its decoded images are kept from here on
    return {
        HELP: process_turns([str(PROJECT / "train.py"), "--help"]),
        STEP: first_step,
        TORCH: process_turns(["-c", "import torch"]),
    }


def report(figures: Figures) -> str:
    """Return the seconds, and what they are of torch's import."""
    return compared("from return to the end of", figures)


def process_turns(arguments: Sequence[str], said: str = "") -> Turn:
    """A process of Python to its end: seconds.

    Args:
        said: last line that it must print.
    """

    def turn() -> float:
        command = [sys.executable, *arguments]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=PROJECT, check=True, stdout=subprocess.PIPE, text=True)
        seconds = time.perf_counter() - began
        if said and not done.stdout.endswith(f"{said}\n"):
            raise RuntimeError(f"{' '.join(command)} ended without {said!r}: {done.stdout}")
        return seconds

    return turn


def first_step_turns(flags: Sequence[str]) -> Turn:
    """train.py until its first step is done: seconds."""

    def turn() -> float:
        with tempfile.TemporaryDirectory() as run_folder:
            arguments = ["-c", UNTIL_FIRST_STEP, *flags, "--ckpt_path", run_folder]
            return process_turns(arguments, "first step done")()

    return turn
