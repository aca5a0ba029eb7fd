"""What compare.py does: runs beside each other, in tables and in curves."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from glob import glob
from pathlib import Path

import tasks
from lab import checkpoint, engine
from lab.console import LabError, as_text, say
from lab.curves import draw_comparison
from lab.drawing import publish
from tasks import Compared, CompareFlags
from tasks.trained import Trained, load_trained

TESTED = 256  # inputs a batch


def compare(flags: CompareFlags) -> None:
    """Print a table of each kind of runs, and draw their curves.

    Raises:
        LabError: none of the runs can be read.
    """
    with redirect_stdout(sys.stderr):  # standard output is for the tables alone
        runs = {}
        for name, folder in short_names(list(matches(flags.runs))).items():
            try:
                runs[name] = read_run(folder, flags)
            except LabError as error:
                say(f"{folder} is left out: {error}")
        if not runs:
            raise LabError("none of the runs can be read")
    # Runs of one kind are comparable: a table and a picture for each.
    kinds: dict[tuple[str, str], dict[str, Compared]] = {}
    for name, run in runs.items():
        task = run.facts.get("task", tasks.DEFAULT)
        kinds.setdefault((task, run.ranks_by), {})[name] = run
    for number, ((task, ranks_by), own) in enumerate(kinds.items()):
        print("\n" * (number > 0) + "\n".join(table(own, ranks_by)))
        if lines := tasks.load(task).summarise(own):
            print("\n" + "\n".join(lines))
        with redirect_stdout(sys.stderr):
            histories = {name: run.history for name, run in own.items()}
            bests = {name: run.best_epoch for name, run in own.items()}
            figure = draw_comparison(histories, ranks_by, bests)
            kind = "_".join(filter(None, ("compare", task, ranks_by)))
            file = "compare.jpg" if len(kinds) == 1 else f"{kind}.jpg"
            publish(figure, flags.save_dir / file)


def matches(folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the folders; PowerShell hands a pattern on as it is: then those that it fits."""
    for folder in folders:
        found = [] if folder.exists() else sorted(glob(str(folder)))
        yield from map(Path, found) if found else (folder,)


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


def read_run(folder: Path, flags: CompareFlags) -> Compared:
    """Read a run from its checkpoints and test its best epoch.

    Where it cannot be tested, its data gone for example, that is said and the rest is kept.

    Raises:
        LabError: no checkpoints, or none that knows the run's history.
    """
    path = checkpoint.find(folder, "last")
    last = load_trained(path, flags.device, flags.precision)
    history, ranks_by = last.state.get("history"), last.objective.ranks_by
    if not history:
        raise LabError(
            "it holds no history of its epochs (the course's scaffold saves none); leave it out, "
            "or train it here"
        )
    best, tested = last.state.get("best_epoch"), None
    try:
        if ranks_by:
            tested = test_best(last, folder, flags)
        elif flags.data_root is not None:
            raise LabError(f"of {last.task.name} nothing is measured but the loss")
    except LabError as error:
        say(f"{folder} is not tested: {error}")
    parameters = sum(parameter.numel() for parameter in last.network.parameters())
    facts = {name: value for name, value in last.state.items() if not name.endswith("_state")}
    return Compared(facts, history, ranks_by, best, tested, parameters)


def test_best(last: Trained, folder: Path, flags: CompareFlags) -> float:
    """Return what the best epoch of a run reaches in the figure that ranks its epochs.

    Args:
        last: the run's last epoch, which is loaded already.

    Raises:
        LabError: there is no such epoch, or nothing to test it on.
    """
    if last.state.get("best_epoch") is None:
        raise LabError("no epoch was validated")
    path, trained = checkpoint.find(folder, "best"), last
    if path != last.path:
        trained = load_trained(path, flags.device, flags.precision)
    loader = trained.task.test_loader(trained, flags.data_root, TESTED)
    meter, label = trained.objective.meter(), f"testing {folder}"
    figures = engine.evaluate(trained.network, meter, loader, trained.runtime, label)
    return figures[last.objective.ranks_by]


def table(runs: Mapping[str, Compared], ranks_by: str) -> list[str]:
    """Return the lines of a Markdown table with a row a run.

    Where nothing is measured but the loss, `ranks_by` is empty: of each run the loss it ended with.
    """
    # Of --also_validate: how good the best epoch was on other folders.
    keys = {key: None for run in runs.values() for row in run.history for key in row
            if ranks_by and key.startswith("also_") and key.endswith(f"_{ranks_by}")}  # fmt: skip
    others = [key.removesuffix(f"_{ranks_by}").replace("_", " ") for key in keys]
    columns = ("epochs", "training loss")
    if ranks_by:
        columns = ("best epoch", f"validation {ranks_by}", f"test {ranks_by}", *others)
    rows = []
    for name, run in runs.items():
        last = run.history[-1]
        best = next((row for row in run.history if row["epoch"] == run.best_epoch), {})
        measured = [
            f"{run.best_epoch or '–'} of {last['epoch']}", cell(best.get(f"val_{ranks_by}")),
            cell(run.tested), *(cell(best.get(key)) for key in keys),
        ] if ranks_by else [str(last["epoch"]), in_digits(last["loss"])]  # fmt: skip
        rows.append([
            name.replace("|", "\\|"), *measured, f"{run.parameters:,}",
            f"{sum(row['seconds'] for row in run.history):,.0f}",
        ])  # fmt: skip
    return markdown_table(("run", *columns, "parameters", "seconds"), rows)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table of names and, at the right of them, numbers."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return [head, "|---|" + "---:|" * (len(columns) - 1), *lines]


def in_digits(loss: float) -> str:
    """Return a loss, which may be of any size, as a table shows it."""
    return f"{loss:,.0f}" if abs(loss) >= 1000 else f"{loss:.4g}"


def cell(figure: float | None) -> str:
    """Return a figure as a table shows it."""
    return "–" if figure is None else as_text(figure)
