"""Compare trained runs: their curves in one picture, and a table of what each has reached.

python compare.py checkpoints/default checkpoints/bn checkpoints/stn
python compare.py checkpoints/* --data_root FOLDER    # all tested on the pictures of one folder
python compare.py checkpoints/* > table.md            # the table alone; the rest is standard error

Validation chooses a run's best epoch, and that epoch is tested. Everything but the test accuracy
is read from the checkpoints.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import tasks
from lab.console import LabError, Parser, add_precision_flag, add_show_flag, as_text, run, say


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
    add_precision_flag(parser)
    add_show_flag(parser)
    return parser


def main() -> None:
    args = make_parser().parse_args()

    from lab.pictures import draw_comparison, publish, show_figures

    with redirect_stdout(sys.stderr):  # standard output is for the table alone
        entries = {}
        for name, folder in short_names(args.runs).items():
            try:
                entries[name] = read_run(folder, args)
            except LabError as error:
                say(f"{folder} is left out: {error}")
        if not entries:
            raise LabError("none of the runs can be read")
    # Runs of one kind are comparable: a table and a picture for each.
    kinds: dict[tuple[str, str], dict[str, tasks.Entry]] = {}
    for name, entry in entries.items():
        task = entry.facts.get("task", tasks.DEFAULT)
        kinds.setdefault((task, entry.ranks_by), {})[name] = entry
    for number, ((task, ranks_by), own) in enumerate(kinds.items()):
        print("\n" * (number > 0) + "\n".join(table(own, ranks_by)))
        if (summarise := tasks.load(task).summarise) is not None:
            print("\n" + "\n".join(summarise(own)))
        with redirect_stdout(sys.stderr):
            histories = {name: entry.history for name, entry in own.items()}
            figure = draw_comparison(histories, ranks_by)
            file = "compare.jpg" if len(kinds) == 1 else f"compare_{task}_{ranks_by}.jpg"
            publish(figure, args.save_dir / file)
    if not args.no_show:
        show_figures()


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


def read_run(folder: Path, args: Namespace) -> tasks.Entry:
    """Read a run from its checkpoints and test its best epoch.

    Where it cannot be tested, its data gone for example, that is said and the rest is kept.

    Raises:
        LabError: no checkpoints, or none that knows the run's history.
    """
    from lab import checkpoint, engine
    from lab.run import best_epoch
    from lab.runtime import place, start_as

    last = checkpoint.load(path := checkpoint.find(folder, "last"))
    field = tasks.field_of(last, path)
    task, model = field.restore(last)
    history = last.get("history")
    if not history:
        raise LabError(
            "it holds no history of its epochs (the course's scaffold saves none); leave it out, "
            "or train it here"
        )
    best = best_epoch(history, task.ranks_by, last.get("settings", {}).get("schedule", "constant"))
    tested = None
    try:
        if best is None:
            raise LabError("no epoch was validated")
        state = checkpoint.load(checkpoint.find(folder, best))
        _, model = field.restore(state)
        runtime = start_as(state, args.device, args.precision)
        loader = field.test_loader(state, args.data_root, 256, runtime)
        model, meter = place(model, runtime), task.meter()
        tested = engine.evaluate(model, meter, loader, runtime, f"testing {folder}")[task.ranks_by]
    except LabError as error:
        say(f"{folder} is not tested: {error}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {name: value for name, value in last.items() if not name.endswith("_state")}
    return tasks.Entry(facts, history, task.ranks_by, best, tested, parameters)


def table(entries: dict[str, tasks.Entry], ranks_by: str) -> list[str]:
    """Return the lines of a Markdown table with a row an entry."""
    columns = ("run", "best epoch", f"validation {ranks_by}", f"test {ranks_by}", "parameters",
               "seconds")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---|" + "---:|" * (len(columns) - 1)]
    for name, entry in entries.items():
        validated = {row["epoch"]: row.get(f"val_{ranks_by}") for row in entry.history}
        cells = (
            name.replace("|", "\\|"),
            f"{entry.best_epoch or '–'} of {entry.history[-1]['epoch']}",
            cell(validated.get(entry.best_epoch)),
            cell(entry.tested),
            f"{entry.parameters:,}",
            f"{sum(row['seconds'] for row in entry.history):,.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(figure: float | None) -> str:
    """Return a figure as the table shows it."""
    return "–" if figure is None else as_text(figure)


if __name__ == "__main__":
    run(main)
