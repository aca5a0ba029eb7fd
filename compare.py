"""Compare trained runs: their curves in one picture, and a table of what each has reached.

python compare.py checkpoints/default checkpoints/bn checkpoints/stn
python compare.py checkpoints/* --data_root FOLDER    # all tested on the pictures of one folder
python compare.py checkpoints/* > table.md            # the table alone; the rest is standard error

Validation chooses a run's best epoch, and that epoch is tested. Everything but the test accuracy
is read from the checkpoints.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.console import LabError, Parser, run, say

if TYPE_CHECKING:
    from lab.engine import Runtime

COLUMNS = ("run", "best epoch", "validation accuracy", "test accuracy", "parameters", "seconds")


@dataclass(frozen=True)
class Run:
    """What a table's row and a picture's curves are made of.

    Attributes:
        history: a row an epoch, as `engine.fit` returns it.
        best_epoch: by validation accuracy; None where no epoch was validated.
        test_accuracy: of the best epoch, in [0, 1]; None where it could not be tested.
        parameters: number of the network's weights.
    """

    history: list[dict[str, Any]]
    best_epoch: int | None
    test_accuracy: float | None
    parameters: int


def make_parser() -> ArgumentParser:
    """Return the parser of compare.py's flags."""
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of checkpoints")
    parser.add_argument(
        "--data_root", type=Path, help="test on it (default: what each run was trained on)"
    )
    parser.add_argument(
        "--save_dir", type=Path, default=Path("visualized"), help="(default %(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there is one")
    return parser


def main() -> None:
    args = make_parser().parse_args()

    from lab import engine
    from lab.pictures import draw_comparison, publish

    with redirect_stdout(sys.stderr):  # standard output is for the table alone
        runtime = engine.start(args.device)
        runs = {
            name: read_run(folder, args.data_root, runtime)
            for name, folder in short_names(args.runs).items()
        }
    print("\n".join(table(runs)))
    with redirect_stdout(sys.stderr):
        histories = {name: entry.history for name, entry in runs.items()}
        publish(draw_comparison(histories), args.save_dir / "compare.jpg")


def short_names(folders: Sequence[Path]) -> dict[str, Path]:
    """Return the folders, each once, by as much of the end of their paths as tells them apart."""
    given = {folder.resolve(): folder for folder in folders}
    names = {}
    for path, folder in given.items():
        length = 1
        while sum(other.parts[-length:] == path.parts[-length:] for other in given) > 1:
            length += 1
        names[str(Path(*path.parts[-length:]))] = folder
    return names


def read_run(folder: Path, data_root: Path | None, runtime: "Runtime") -> Run:
    """Read a run from its checkpoints and test its best epoch.

    Where it cannot be tested, its data gone for example, that is said and the rest is kept.

    Raises:
        LabError: no checkpoints, or none that knows the run's history.
    """
    from datasets import get_test_loader
    from lab import checkpoint, engine
    from networks import load_network

    last = checkpoint.load(checkpoint.find(folder, "last"))
    history = last.get("history")
    if not history:
        raise LabError(
            f"{folder} holds no history of its epochs (the course's scaffold saves none); leave "
            "it out, or train it here"
        )
    best_epoch = engine.best_epoch(history)
    test_accuracy = None
    try:
        if best_epoch is None:
            raise LabError("no epoch was validated")
        best = checkpoint.load(checkpoint.find(folder, best_epoch))
        loader = get_test_loader(best, data_root, 256, runtime.device)
        model = load_network(best).to(runtime.device)
        test_accuracy = engine.evaluate(model, loader, runtime, label=f"testing {folder}").accuracy
    except LabError as error:
        say(f"{folder} is not tested: {error}")
    parameters = sum(parameter.numel() for parameter in load_network(last).parameters())
    return Run(history, best_epoch, test_accuracy, parameters)


def table(runs: dict[str, Run]) -> list[str]:
    """Return the lines of a Markdown table with a row a entry."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|" + "---:|" * (len(COLUMNS) - 1)]
    for name, entry in runs.items():
        accuracies = {row["epoch"]: row["val_accuracy"] for row in entry.history}
        cells = (
            name.replace("|", "\\|"),
            f"{entry.best_epoch or '–'} of {len(entry.history)}",
            percent(accuracies.get(entry.best_epoch)),
            percent(entry.test_accuracy),
            f"{entry.parameters:,}",
            f"{sum(row['seconds'] for row in entry.history):,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def percent(share: float | None) -> str:
    """Return a share as a table shows it."""
    return "–" if share is None else f"{share:.2%}"


if __name__ == "__main__":
    run(main)
