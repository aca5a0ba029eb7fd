"""What the suites share: small data sets, and the real scripts run as a user would."""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
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
LONGEST = 300  # seconds that a script may take
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


def _serve(asked: socket.socket) -> None:
    """Run the scripts that are asked for in forks of this process, until nobody can ask any more.

    With torch imported, that takes no time; and nothing has been computed, after which it may hang.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    matplotlib.use("agg")  # MPLBACKEND is read when it is imported
    while True:
        message, streams, *_ = socket.recv_fds(asked, 1 << 20, 2)
        if not message:
            os._exit(0)
        words, folder, variables = json.loads(message)
        process = os.fork()
        if not process:
            asked.close()
            _run(words, folder, variables, streams)
        for stream in streams:
            os.close(stream)
        asked.send(b"%d" % os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _run(words: list[str], folder: str, variables: dict[str, str], streams: list[int]) -> NoReturn:
    """Go on as `python WORDS`, with these variables, and this output and these errors."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.alarm(LONGEST)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream, number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv, code = words, 0
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.exit(code)


def _start_server() -> socket.socket | None:
    """Return what `_serve` listens to in a process of its own; None where forks may crash."""
    if sys.platform != "linux":
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sys.stdout.flush()
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    _serve(theirs)


def script(
    *arguments: object, cwd: Path = PROJECT, env: dict[str, str] | None = None, processes: int = 1
) -> subprocess.CompletedProcess:
    """Run `python SCRIPT ...` to its end and return it, output as text.

    Args:
        env: variables that it has besides.
        processes: as many as torchrun starts of it.
    """
    name, *rest = map(str, arguments)
    words, variables = [str(PROJECT / name), *rest], environment() | (env or {})
    if processes == 1 and SERVER:
        return _ask(words, str(cwd), variables)
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone"]
        words = [*launcher, f"--nproc_per_node={processes}", *words]
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=variables, capture_output=True, text=True,
        timeout=LONGEST,
    )  # fmt: skip


def _ask(words: list[str], folder: str, variables: dict[str, str]) -> subprocess.CompletedProcess:
    """Have `_serve` run a script, and return it."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        message = json.dumps([words, folder, variables]).encode()
        socket.send_fds(SERVER, [message], [output.fileno(), errors.fileno()])
        code = int(SERVER.recv(1 << 10))
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(words, code, output.read(), errors.read())


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


SERVER = _start_server()  # a fork of this process before it computes, when all above is known
