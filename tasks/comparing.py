"""What compare.py does: runs beside each other, in tables and in curves."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import tasks
from lab import checkpoint, engine
from lab.console import LabError, as_text, say
from lab.curves import draw_comparison
from lab.drawing import publish
from lab.run import best_epoch
from tasks import Compared, CompareFlags
from tasks.trained import load_trained

TESTED = 256  # inputs a batch


def compare(flags: CompareFlags) -> None:
    """Print a table of each kind of runs, and draw their curves.

    Raises:
        LabError: none of the runs can be read.
    """
    with redirect_stdout(sys.stderr):  # standard output is for the tables alone
        runs = {}
        for name, folder in short_names(flags.runs).items():
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
            figure = draw_comparison({name: run.history for name, run in own.items()}, ranks_by)
            file = "compare.jpg" if len(kinds) == 1 else f"compare_{task}_{ranks_by}.jpg"
            publish(figure, flags.save_dir / file)


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
    settings = last.state.get("settings", {})
    best = best_epoch(history, ranks_by, settings.get("schedule", "constant"))
    tested = None
    try:
        if best is None:
            raise LabError("no epoch was validated")
        best_path = checkpoint.find(folder, best)
        trained = last
        if best_path != path:
            trained = load_trained(best_path, flags.device, flags.precision)
        loader = trained.task.test_loader(trained, flags.data_root, TESTED)
        meter, label = trained.objective.meter(), f"testing {folder}"
        figures = engine.evaluate(trained.network, meter, loader, trained.runtime, label)
        tested = figures[ranks_by]
    except LabError as error:
        say(f"{folder} is not tested: {error}")
    parameters = sum(parameter.numel() for parameter in last.network.parameters())
    facts = {name: value for name, value in last.state.items() if not name.endswith("_state")}
    return Compared(facts, history, ranks_by, best, tested, parameters)


def table(runs: Mapping[str, Compared], ranks_by: str) -> list[str]:
    """Return the lines of a Markdown table with a row a run."""
    # Of --also_validate: how good the best epoch was on other folders.
    keys = {key: None for run in runs.values() for row in run.history for key in row
            if key.startswith("also_") and key.endswith(f"_{ranks_by}")}  # fmt: skip
    others = [key.removesuffix(f"_{ranks_by}").replace("_", " ") for key in keys]
    columns = ("run", "best epoch", f"validation {ranks_by}", f"test {ranks_by}", *others,
               "parameters", "seconds")  # fmt: skip
    rows = []
    for name, run in runs.items():
        best = next((row for row in run.history if row["epoch"] == run.best_epoch), {})
        rows.append([
            name.replace("|", "\\|"), f"{run.best_epoch or '–'} of {run.history[-1]['epoch']}",
            cell(best.get(f"val_{ranks_by}")), cell(run.tested),
            *(cell(best.get(key)) for key in keys), f"{run.parameters:,}",
            f"{sum(row['seconds'] for row in run.history):,.0f}",
        ])  # fmt: skip
    return markdown_table(columns, rows)


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table of names and, at the right of them, numbers."""
    head, *lines = (f"| {' | '.join(cells)} |" for cells in (columns, *rows))
    return [head, "|---|" + "---:|" * (len(columns) - 1), *lines]


def cell(figure: float | None) -> str:
    """Return a figure as a table shows it."""
    return "–" if figure is None else as_text(figure)
