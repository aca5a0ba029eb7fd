"""What the suites share: small data sets, and the real scripts run as a user would."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import os
import re
import signal
import subprocess
import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

import tasks
from lab import console

if TYPE_CHECKING:
    from torch import nn

PROJECT = Path(__file__).parent.parent
CLASSES = ("blue", "green", "red")
ODD_NAMES = ("$a_b$", "back\\slash", r"\$c", "$", "no text \udcff", "tab\tbed", "_hidden")


def make_images(root: Path, per_class: dict[str, int], size: int = 32) -> Path:
    """Write an ImageFolder tree of noisy squares, one colour a class; easy to learn."""
    rng = np.random.default_rng(0)
    for mode, count in per_class.items():
        for label, name in enumerate(CLASSES):
            folder = root / mode / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 120, (size, size, 3))
                pixels[8:24, 8:24, 2 - label] += 100
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{index:03d}.png")
    return root


def network_of(state: dict[str, Any]) -> nn.Module:
    """Return the network of what a checkpoint holds."""
    return tasks.task_of(state, Path()).restore(state)[1]


def words_of(figure: Figure) -> list[str]:
    """Return the lines of text that a figure shows, as a reader sees them."""
    file = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, format="svg")
    return re.findall(r"<text[^>]*>([^<]*)</text>", file.getvalue())


def assert_names_shown(test: unittest.TestCase, figure: Figure) -> None:
    """A figure shows `ODD_NAMES` as they are; what no font has as a mark."""
    shown = words_of(figure)
    for name in ODD_NAMES:
        test.assertIn(name.replace("\udcff", "\ufffd").replace("\t", "\ufffd"), shown)


def environment(threads: int = 1) -> dict[str, str]:
    """Return the environment of a script run by a test: no display, few threads."""
    kept = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "RANK")}
    return kept | {"OMP_NUM_THREADS": str(threads), "MPLBACKEND": "Agg"}


def script(
    *arguments: object, cwd: Path = PROJECT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run `python SCRIPT ...` to its end and return it, output as text; `env` adds variables."""
    name, *rest = map(str, arguments)
    return subprocess.run(
        [sys.executable, str(PROJECT / name), *rest],
        cwd=cwd, env=environment() | (env or {}), capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def main_of(name: str) -> Callable[[], None]:
    """Return what a script does; `datasets.py`, which others import, has it elsewhere."""
    module = {"datasets.py": "published.commands"}.get(name, name.removesuffix(".py"))
    return importlib.import_module(module).main


def script_here(*arguments: object) -> subprocess.CompletedProcess:
    """The same in this process, where no time goes into starting one; nothing prints."""
    name, *rest = map(str, arguments)
    main = main_of(name)
    matplotlib.use("agg")  # elsewhere a display would open windows
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        mock.patch.object(sys, "argv", [name, *rest]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            console.run(main)
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def stopped_at(step: int, optimizer: type | None = None) -> contextlib.AbstractContextManager:
    """Return a context in which Ctrl-C comes before an optimizer's step number `step`, from 0.

    optimizer: its class; AdamW if None.
    """
    import torch

    kind = optimizer or torch.optim.AdamW
    steps, made = itertools.count(), kind.step

    def count(*arguments: object, **options: object) -> object:
        if next(steps) == step:
            signal.raise_signal(signal.SIGINT)
        return made(*arguments, **options)

    return mock.patch.object(kind, "step", count)


class ScriptCase(unittest.TestCase):
    """Tests of what scripts say and how they end."""

    def assert_same_weights(self, *files: Path) -> None:
        """Two checkpoints hold the same weights, bit by bit."""
        import torch

        one, other = (torch.load(file, weights_only=True)["model_state"] for file in files)
        self.assertEqual(one.keys(), other.keys())
        for name, value in one.items():
            self.assertTrue(torch.equal(value, other[name]), name)

    def assert_refused(self, done: subprocess.CompletedProcess, code: int, *words: object) -> None:
        """The script ended with `code` and one line of error that holds all the words."""
        self.assertEqual(done.returncode, code, done.stdout + done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        for word in words:
            self.assertIn(str(word), done.stderr)
