"""The files of a run, as a report reads them: figures, how it was made, what a test has found."""

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import checkpoint
from lab.console import LabError
from lab.files import read_text
from lab.run import read_sessions


@dataclass(frozen=True)
class RunFiles:
    """What a run's folder says."""

    folder: Path
    history: list[dict[str, float]]  # metrics.csv, an epoch a row, in which is what was measured
    sessions: list[dict[str, Any]]  # run.json, an entry each time that it was gone on with
    test: dict[str, Any] | None  # test.json; None where it was not tested
    predictions: list[tuple[str, str]]  # predictions.csv: label and prediction of each test image

    @property
    def trained(self) -> dict[str, Any]:
        """What was trained on what; empty in runs of earlier versions."""
        return self.sessions[-1].get("trained") or {}

    @property
    def tested_epoch(self) -> int | None:
        """The epoch that was tested."""
        match = checkpoint.EPOCH_FILE.fullmatch(self.test["checkpoint"]) if self.test else None
        return int(match[1]) if match else None

    def at_epoch(self, epoch: int | None) -> dict[str, float]:
        """Return an epoch's figures; none where it is not known."""
        return next((row for row in self.history if row["epoch"] == epoch), {})


def read(folder: Path) -> RunFiles | None:
    """Return what a run's folder says; None where no epoch of a run is in it.

    Raises:
        LabError: a file of it cannot be read.
    """
    if not all((folder / name).is_file() for name in ("metrics.csv", "run.json")):
        return None
    test = folder / "test.json"
    try:
        rows = _rows(folder / "metrics.csv")
        history = [{name: float(value) for name, value in row.items() if value} for row in rows]
        if (sessions := read_sessions(folder)) is None:
            raise ValueError("run.json does not say how it was made")
        tested = json.loads(read_text(test)) if test.is_file() else None
        rows = _rows(folder / "predictions.csv")
        predictions = [(row["label"], row["prediction"]) for row in rows]
    except (LabError, ValueError, KeyError, TypeError) as error:
        raise LabError(f"the files of the run in {folder} cannot be read: {error}") from error
    if not history or not sessions:
        return None
    return RunFiles(folder, history, sessions, tested, predictions)


def _rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none where there is none."""
    if not path.is_file():
        return []
    return list(csv.DictReader(io.StringIO(read_text(path, "surrogateescape"))))


def command_of(folder: Path) -> str:
    """Return the command that began a run, also one without a finished epoch; empty if unknown."""
    sessions = read_sessions(folder)
    return str(sessions[0].get("command", "")) if sessions else ""
