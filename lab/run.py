"""A run: one folder that holds all of one training, and never anything of another.

| file | |
|---|---|
| `ckpt_epoch_N.pth` | a finished epoch |
| `ckpt_interrupted.pth` | the middle of one, after Ctrl-C |
| `metrics.csv`, `events.out.tfevents.*` | its figures, a row an epoch |
| `loss_and_acc.jpg` | their curves, drawn when the training has ended or is stopped |
| `run.json` | what was trained on what, command, versions, commit, seed; again when resumed |
| `log.txt` | what was printed |
| `previous_K/` | an earlier run, or later epochs of this one that it went back behind |

`test.py` adds `test.json`, pictures and, of a classifier, `predictions.csv` and `results/`. Of
diffusion, `pipeline/` is what others load, and `autoencoder/` the folder of its first stage.
`export/` and `page.html` are what `export.py` and `page.py` wrote.
"""

import csv
import io
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from lab import checkpoint
from lab.console import LabError, command, keep_log, launch, may_go_on, say
from lab.files import alone, attempt, read_text, write_whole
from lab.folders import PROJECT
from lab.runtime import Runtime

SESSIONS = "run.json"
# All that the scripts write into a run's folder.
OWN = ("ckpt_*.pth", "metrics.csv", "events.out.tfevents.*", "run.json", "log.txt", "test.json",
       "predictions.csv", "*.jpg", "film_*.mp4", "vis.png", "results", "pipeline",
       "export", "page.html")  # fmt: skip


class Run:
    """The folder of one training; only the main process writes to it, or raises a LabError.

    Attributes:
        history: a row an epoch that is done, as in metrics.csv.
        best: the best epoch of these, as the last checkpoint says; None if there is none.
    """

    def __init__(self, folder: Path, runtime: Runtime):
        self.folder, self.writes = folder, runtime.rank == 0
        self.history: Sequence[dict[str, Any]] = []
        self.best: int | None = None
        self._events: SummaryWriter | None = None
        if self.writes:  # if it cannot be, that is found out now, not after an epoch
            probe = folder / ".writable"
            with attempt(f"write to --ckpt_path {folder}"):
                folder.mkdir(parents=True, exist_ok=True)
                probe.touch()
                probe.unlink(missing_ok=True)

    def taken(self) -> AbstractContextManager:
        """Return the context in which no other process trains in this folder.

        Raises:
            LabError: another one does.
        """
        instead = "wait for it, or give another --ckpt_path"
        return alone(self.folder, "trains in", instead) if self.writes else nullcontext()

    def begin(
        self,
        runtime: Runtime,
        seed: int,
        resumed: Path | None = None,
        state: Mapping[str, Any] | None = None,
        trained: dict[str, Any] | None = None,
    ) -> None:
        """Make room for this run, and note how it is made.

        Whatever is in the folder and does not lead up to this run is set aside: an earlier run, or
        epochs after the one it goes on from.

        Args:
            resumed, state: the checkpoint that it goes on from, and what that holds.
            trained: what is trained on what, for `run.json`.
        """
        if not self.writes:
            return
        if state is not None:
            self._note(state)
        if resumed is None or resumed.parent.resolve() != self.folder.resolve():
            self.set_aside_all()
        else:
            epochs = checkpoint.epochs(self.folder)
            later = [path.name for epoch, path in epochs.items() if epoch > state["epoch"]]
            if resumed.name != checkpoint.INTERRUPTED:
                later.append(checkpoint.INTERRUPTED)
            if place := self._set_aside(later):
                say(f"Going on from {resumed}; what came after it is now in {place}")
        keep_log(self.folder / "log.txt")
        sessions = read_sessions(self.folder)
        if sessions is None:
            say(f"{self.folder / SESSIONS} cannot be read and is written anew")
        self._record([*(sessions or []), session_of(runtime, seed, resumed, trained)])

    def end(self) -> None:
        """Note that nothing of this run is missing any more."""
        if self.writes and (sessions := read_sessions(self.folder)):
            self._record([*sessions[:-1], sessions[-1] | {"ended": now()}])

    def _record(self, sessions: Sequence[dict[str, Any]]) -> None:
        write_whole(self.folder / SESSIONS, json.dumps(sessions, indent=2) + "\n")

    def set_aside_all(self) -> None:
        """Set aside an earlier run, if there is one."""
        if self.writes and (place := self._set_aside(OWN)):
            say(f"{self.folder} held an earlier run; it is now in {place}")

    def _set_aside(self, patterns: Sequence[str]) -> Path | None:
        """Move what matches into a new `previous_K`; None if no checkpoint is among it.

        Pictures without a checkpoint beside them are some other thing's.
        """
        found = [path for pattern in patterns for path in sorted(self.folder.glob(pattern))]
        if not any(path.suffix == ".pth" for path in found):
            return None
        number = 1
        while (place := self.folder / f"previous_{number}").exists():
            number += 1
        with attempt(f"move the earlier run in {self.folder}"):
            place.mkdir()
            for path in found:
                path.rename(place / path.name)
        return place

    def save_epoch(self, state: dict[str, Any], keep: int, ranks_by: str) -> Path:
        """Save an epoch that is done; remove the oldest ones beyond `keep`.

        What is or may become the best by the figure `ranks_by` is not removed.
        """
        path = self.folder / f"ckpt_epoch_{state['epoch']}.pth"
        if self.writes:
            checkpoint.save(path, state)
            (self.folder / checkpoint.INTERRUPTED).unlink(missing_ok=True)
            checkpoint.rotate(self.folder, keep, contenders(state["history"], ranks_by))
            self._note(state)
            self._log()
        return path

    def _note(self, state: Mapping[str, Any]) -> None:
        self.history, self.best = state.get("history", []), state.get("best_epoch")

    def save_interrupted(self, state: dict[str, Any]) -> Path:
        """Save the middle of an epoch."""
        path = self.folder / checkpoint.INTERRUPTED
        if self.writes:
            checkpoint.save(path, state)
        return path

    def newest_weights(self) -> Iterator[tuple[Path, dict[str, torch.Tensor]]]:
        """Yield the weights of its epochs that can be read, the newest first."""
        for path in reversed(checkpoint.epochs(self.folder).values()):
            try:
                yield path, checkpoint.load(path)["model_state"]
            except LabError:
                continue

    def _log(self) -> None:
        write_whole(self.folder / "metrics.csv", as_csv(self.history))
        row = self.history[-1]
        if self._events is None:
            # Rows from this epoch on that an earlier process left are struck.
            self._events = SummaryWriter(str(self.folder), purge_step=row["epoch"])
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._events.add_scalar(name, value, row["epoch"])
        self._events.flush()

    def close(self) -> None:
        """Finish the event file."""
        if self._events is not None:
            self._events.close()


def left_off(folder: Path) -> Path | None:
    """Return the checkpoint to go on from where torchrun has started a run's processes again.

    None of any other start: what is in the folder is then of another launch.
    """
    name = launch()
    if name is None or not may_go_on():
        return None
    try:
        path = checkpoint.resume_point(folder)
    except LabError:  # it has come to none
        return None
    sessions = read_sessions(path.parent) if path.is_file() else None
    return path if sessions and sessions[-1].get("launch") == name else None


def best_epoch(
    history: Sequence[dict[str, Any]], ranks_by: str, schedule: str = "constant"
) -> int | None:
    """Return the epoch that is called best; None where none was validated.

    A validation split of few signs jumps by whole signs from epoch to epoch, so that its highest
    figure is luck as much as merit. A schedule that brings the rate down makes the last epoch the
    one to take. At a constant rate it is that of the highest figure, each averaged with its
    neighbours' at half their weight; of equals, that of the lowest loss. Epochs whose figures are
    not finite do not count.
    """
    ranked = _ranked(history, ranks_by)
    if schedule != "constant":
        return ranked[-1][2] if ranked else None
    return _smoothed_best(ranked, len(ranked))


def contenders(history: Sequence[dict[str, Any]], ranks_by: str) -> set[int]:
    """Return the epochs that are best or may become it, at whatever schedule the run goes on.

    An epoch's mean changes once more when its neighbour comes: until then the last one validated
    may be best, and give way to one before it.
    """
    ranked = _ranked(history, ranks_by)
    best = {_smoothed_best(ranked, len(ranked)), _smoothed_best(ranked, len(ranked) - 1)}
    return (best | {epoch for *_, epoch in ranked[-1:]}) - {None}


def _ranked(history: Sequence[dict[str, Any]], ranks_by: str) -> list[tuple[float, float, int]]:
    """Return the figure, the loss and the number of each epoch that was validated."""
    key = f"val_{ranks_by}"
    rows = [row for row in history if row.get(key) is not None]
    ranked = [(row[key], row.get("val_loss") or 0.0, row["epoch"]) for row in rows]
    return [entry for entry in ranked if all(map(math.isfinite, entry))]


def _smoothed_best(ranked: Sequence[tuple[float, float, int]], among: int) -> int | None:
    """Return the best by smoothed figures of the first epochs, so many; None of none."""
    if among <= 0:
        return None
    figures = [figure for figure, _, _ in ranked]
    sums = [np.convolve(values, (1, 2, 1))[1:-1] for values in (figures, np.ones(len(figures)))]
    smooth = (sums[0] / sums[1]).round(9)
    best = max(range(among), key=lambda index: (smooth[index], -ranked[index][1]))
    return ranked[best][2]


def as_csv(history: Sequence[dict[str, Any]]) -> str:
    """Return a table of epochs; all anew each time, so that a resumed run repeats none."""
    columns = {name: None for row in history for name in row}
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def read_sessions(folder: Path) -> list[dict[str, Any]] | None:
    """Return how a run was made, an entry each time it went on; None if that cannot be read."""
    path = folder / SESSIONS
    if not path.is_file():
        return []
    try:
        sessions = json.loads(read_text(path))
    except (LabError, ValueError):
        return None
    good = isinstance(sessions, list) and all(isinstance(session, dict) for session in sessions)
    return sessions if good else None


def has_ended(folder: Path) -> bool:
    """True of a run that came to its end: all that follows its last epoch was made as well."""
    sessions = read_sessions(folder)
    return bool(sessions and sessions[-1].get("ended"))


def now() -> str:
    """Return the time as a run's record has it."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def session_of(
    runtime: Runtime, seed: int, resumed: Path | None, trained: dict[str, Any] | None
) -> dict[str, Any]:
    """Return how this process makes a run, for whoever wants to make it again."""
    device = processor()
    if runtime.device.type == "cuda":
        device = torch.cuda.get_device_name(runtime.device)
    return {
        "started": now(),
        "ended": None,
        "command": command(Path(sys.argv[0]).name, *sys.argv[1:]),
        "resumed": resumed and str(resumed),
        "launch": launch(),
        "seed": seed,
        "trained": trained,
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "numpy": np.__version__,
        },
        "machine": {
            "system": platform.platform(),
            "device": device,
            "precision": runtime.precision,
            "processes": runtime.world_size,
            "threads": torch.get_num_threads(),
        },
    }


def processor() -> str:
    """Return the name of the processor, as far as the system tells."""
    known = platform.processor() or platform.machine()
    with suppress(OSError):  # of Linux, where Python knows the architecture alone
        lines = Path("/proc/cpuinfo").read_bytes().decode(errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        known = next(filter(None, names), known)
    return known


def commit() -> str | None:
    """Return the project's commit, with a + where files differ from it; None outside git."""
    git = ["git", "-C", str(PROJECT)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        status = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True)
    except OSError:
        return None
    return head.stdout.strip() + "+" * bool(status.stdout) if head.returncode == 0 else None
