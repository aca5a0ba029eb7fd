"""What pretrain.py does: train a network that comes with the project, test it, write its folder.

    ship("signs", wanted, ShipFlags(run=Path("checkpoints/drawn")))

The folder is read as a run's is. It holds one checkpoint, of the best epoch, without what only a
training needs, in 16 bits where no figure changes by that; and a card, README.md, which says no
more than the checkpoint does.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import tasks
from lab import checkpoint
from lab.console import LabError, UsageError, as_text, command, counted, say
from lab.files import attempt, read_text, write_whole
from lab.flags import CKPT_PATH
from lab.folders import PRETRAINED, PROJECT, near, unfinished
from lab.run import has_ended, read_sessions
from tasks import State, TestFlags, TrainFlags
from tasks.comparing import markdown_table
from tasks.diffusion import AUTOENCODER_FOLDER
from tasks.shipped import SHIPPED, ShipFlags, Shipped, written_to
from tasks.testing import test
from tasks.training import flags_of_run
from tasks.video.data import drawn_folder
from world.missing import DRAWN, drawn_clips

MOST_MOVED = 0.001  # that a figure, a share, may change by where weights are kept in 16 bits
WIDTH, QUALITY = 800, 80  # of a card's picture, in pixels and as of JPEG
MISTAKES, CARD = "mistakes.jpg", "README.md"
# Flags that say where a run lies, and how it goes, not what comes of it.
BESIDE = (
    "ckpt_path", "data_root", "also_validate", "autoencoder", "max_ckpt_save_num", "num_workers",
    "val_interval", "compile", "graph", "precision",
)  # fmt: skip
MORE = ("read_as_asked",)  # that a test says besides its figures
TRAINING_ALONE = ("scaler", "averaged", "data_root", "also_validate")


def ship(name: str, wanted: TrainFlags, flags: ShipFlags) -> None:
    """Make the folder of a network that comes with the project.

    Args:
        wanted: what the network's command asks train.py for.

    Raises:
        UsageError: the run that is given was made by another command, or the folder is another's.
        LabError: there is no such run, or the network cannot be trained or written.
    """
    shipped, target = SHIPPED[name], flags.out or PRETRAINED / name
    if target.is_dir() and any(target.iterdir()) and not is_shipped(target):
        wrong = f"--out {target} holds something else than a network that is passed on"
        raise UsageError(f"{wrong}, and would be replaced: name a new folder")
    if shipped.reader and not checkpoint.epochs(PRETRAINED / shipped.reader):
        first = command("pretrain.py", shipped.reader)
        raise LabError(f"{name} is read by {shipped.reader}, which is not there yet: {first}")
    folder = trained_run(name, shipped) if flags.run is None else flags.run
    path = checkpoint.best_or_last(folder)
    state = checkpoint.load(path)
    check_command(name, wanted, path, state)
    kept = without_training(state) | {"shipped": {"name": name} | made(folder, state)}
    with attempt(f"write {target}"), unfinished(target) as making:
        making.mkdir(parents=True)
        kept, mistakes = tested(shipped, kept, making, flags.also or [])
        write(kept, making)
        if mistakes is not None:
            mistakes.save(making / MISTAKES, quality=QUALITY)
        write_whole(making / CARD, card(making))
        if target.exists():
            shutil.rmtree(target)
        making.rename(target)
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    say(f"Saved {near(target)}, {size / 1e6:.1f} MB")


def is_shipped(folder: Path) -> bool:
    """True of a folder that holds a network as it is passed on."""
    return any("shipped" in checkpoint.load(path) for path in checkpoint.epochs(folder).values())


# ---------------------------------------------------------------- the run


def trained_run(name: str, shipped: Shipped) -> Path:
    """Train a network by its command, or go on with that; return the run's folder.

    Raises:
        LabError: train.py has not come to its end.
    """
    folder = CKPT_PATH.with_name("pretrained") / name
    if has_ended(folder):
        say(f"{folder} has been trained: it is taken; remove it to train it anew")
        return folder
    words = ["--resume", folder] if begun(folder) else [*shipped.words, "--ckpt_path", folder]
    say(command("train.py", *words))
    ended = subprocess.run([sys.executable, PROJECT / "train.py", *map(str, words), "--no_show"])
    if ended.returncode:
        raise LabError(f"the training has not ended; call this again to go on with {folder}")
    return folder


def begun(folder: Path) -> bool:
    """True where there is a checkpoint to go on from."""
    try:
        return checkpoint.resume_point(folder).is_file()
    except (LabError, OSError):
        return False


def check_command(name: str, wanted: TrainFlags, path: Path, state: State) -> None:
    """Raise a UsageError where a run was not made by a network's command; names the difference."""
    task = tasks.task_of(state, path)
    if "shipped" in state:
        raise UsageError(f"{path} is no run: it comes with the project")
    *_, (last, _) = tasks.load(wanted.task).stages(wanted, None)
    asked = asdict(last.settings) | vars(last.own) | {"task": last.task}
    for key, value in flags_of_run(task, path, state).items():
        if key in BESIDE or asked.get(key) is None or asked[key] == value:
            continue
        wrong = f"{path} was trained with {key} {value}, {name} is with {asked[key]}"
        raise UsageError(f"{wrong}: {command('train.py', *SHIPPED[name].words)}")


def without_training(state: State) -> State:
    """Return what a run's checkpoint holds that is passed on."""
    kept = {
        key: value for key, value in state.items()
        if key == "model_state" or not (key.endswith("_state") or key in TRAINING_ALONE)
    }  # fmt: skip
    return kept | {"best_epoch": state["epoch"]}


def made(folder: Path, state: State) -> dict[str, Any]:
    """Return how a run was made, by its own record.

    Raises:
        LabError: it has none.
    """
    sessions = read_sessions(folder)
    if not sessions or not sessions[-1].get("trained"):
        raise LabError(f"{folder} does not say how it was made: run.json is missing or damaged")
    last, seconds = sessions[-1], sum(row["seconds"] for row in state["history"])
    if (first := folder / AUTOENCODER_FOLDER).is_dir():
        earlier = checkpoint.load(checkpoint.find(first, "last"))["history"]
        seconds += sum(row["seconds"] for row in earlier)
    facts = {key: last[key] for key in ("commit", "versions", "machine", "seed")}
    counts = {key: last["trained"][key] for key in ("inputs", "parameters")}
    return facts | counts | {"minutes": seconds / 60}


# ---------------------------------------------------------------- the test


def tested(
    shipped: Shipped, state: State, folder: Path, also: Sequence[Path]
) -> tuple[State, Image.Image | None]:
    """Return a checkpoint in as few bits as will do, with the figures that it has in these.

    Args:
        folder: takes checkpoints while they are tested.
        also: folders that it is tested on besides.

    Returns:
        The checkpoint, and a picture of what it gets wrong of the test split, if it does.
    """
    wrong = written_to(state["shipped"]["name"]) / shipped.failing
    wrong.unlink(missing_ok=True)
    halved = state | {"model_state": in_half(state["model_state"])}
    with tempfile.TemporaryDirectory() as drawn:
        most = draw_test(shipped, state, None, Path(drawn, "all"))
        exact = measure(shipped, state, folder, Path(drawn, "all"))
        figures = measure(shipped, halved, folder, Path(drawn, "all"), save=True)
        mistakes = small(wrong) if wrong.is_file() else None
        moved = [abs(figures["figures"][k] - v) for k, v in exact["figures"].items()]
        moved = float(np.max(moved))  # no number where one of them is none
        bits = 16 if moved <= MOST_MOVED else 32
        chosen, all_of_it = (halved, figures) if bits == 16 else (state, exact)
        tests = [{"of": f"the {all_of_it['inputs']:,} of the drawn test split"} | all_of_it]
        if shipped.few < most:
            draw_test(shipped, state, shipped.few, Path(drawn, "few"))
            few = measure(shipped, chosen, folder, Path(drawn, "few"))
            tests.append({"of": f"the first {few['inputs']} of them"} | few)
        for place in also:
            own = measure(shipped, chosen, folder, place)
            tests.append({"of": f"{own['inputs']:,} of {place.resolve().name}"} | own)
    facts = {"bits": bits, "moved": moved, "tests": tests}
    return chosen | {"shipped": state["shipped"] | facts}, mistakes


def in_half(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights in 16 bits; the few that scale or shift channels as they are.

    These are what figures hang on most: those of a batch norm are of any size.
    """
    return {
        key: value.half() if value.is_floating_point() and value.dim() > 1 else value
        for key, value in weights.items()
    }


def draw_test(shipped: Shipped, state: State, count: int | None, root: Path) -> int:
    """Draw the test split that a network is tested on.

    Args:
        count: of its inputs, the first ones, of each class where there are any; None for all.
        root: the folder to give as `--data_root`.

    Returns:
        How many are drawn so.
    """
    folder, drawn = root, DRAWN.get(shipped.draws)
    if drawn is None:
        frames = state["configs"]["frames"]
        drawn = drawn_clips(shipped.draws, frames)
        folder = drawn_folder(shipped.draws, root, frames)
    count = count or drawn.draw.splits["test"]
    drawn.draw(folder, splits={"train": 1, "val": 1, "test": count})  # readers ask for all three
    return count


def measure(
    shipped: Shipped, state: State, folder: Path, data_root: Path, save: bool = False
) -> dict[str, Any]:
    """Write a checkpoint into a folder, test it as test.py does, and return what comes of it.

    It computes in 32 bits: so the figures are the same on every machine.
    """
    write(state, folder)
    reader = shipped.reader and PRETRAINED / shipped.reader
    test(TestFlags(
        ckpt_path=folder, epoch="best", device="cpu", precision="fp32", data_root=data_root,
        save=save, no_show=True, read=reader,
    ))  # fmt: skip
    result = json.loads(read_text(written_to(state["shipped"]["name"]) / "test.json"))
    figures = {k: v for k, v in result["figures"].items() if k != "loss"}
    more = {key: result[key] for key in MORE if key in result}
    return {"inputs": result["inputs"], "figures": figures, **more}


# ---------------------------------------------------------------- the folder


def write(state: State, folder: Path) -> None:
    """Write the checkpoint of a network, in place of any other, as small as it gets."""
    for earlier in checkpoint.epochs(folder).values():
        earlier.unlink()
    task = tasks.task_of(state, folder)
    packed = task.packed(state, folder)
    checkpoint.save(folder / f"ckpt_epoch_{state['epoch']}.pth", packed, small=True)


def small(path: Path) -> Image.Image:
    """Return a picture as a card shows it."""
    with Image.open(path) as image:
        image.thumbnail((WIDTH, 2 * WIDTH))
        return image.convert("RGB")


def card(folder: Path) -> str:
    """Return the card of a network that lies in a folder: what its checkpoint says, in Markdown."""
    state = checkpoint.load(checkpoint.find(folder, "best"))
    facts, files = state["shipped"], [file for file in folder.rglob("*") if file.name != CARD]
    name, size = facts["name"], sum(file.stat().st_size for file in files if file.is_file())
    shipped, where = SHIPPED[name], f"pretrained/{name}"
    versions, machine = facts["versions"], facts["machine"]
    counts = ", ".join(f"{count:,} for {mode}" for mode, count in facts["inputs"].items())
    tested_by = ["--ckpt_path", where, "--precision", "fp32"]
    if shipped.reader:
        tested_by += ["--read", f"pretrained/{shipped.reader}"]
    threads = counted(machine["threads"] * machine["processes"], "threads")
    rows = {
        "made again by": f"`python pretrain.py {name}`, which is "
        f"`{command('train.py', *shipped.words)}`, seed {facts['seed']}",
        "commit": facts["commit"],
        "versions": ", ".join(f"{library} {number}" for library, number in versions.items()),
        "trained on": f"{machine['device']}, {threads}, {machine['precision']}: "
        f"{counted(max(1, round(facts['minutes'])), 'minutes')}",
        "network": f"`{state['network']}`, {facts['parameters']:,} weights that were trained, in "
        f"{facts['bits']} bits: {size / 1e6:.1f} MB in all",
        "has seen": f"`{shipped.draws}` as this project draws them: {counts}. Nothing else, no "
        "photograph, no network of others",
        "licence": "of what it has seen: the project's own, for `world/` draws all of it from "
        "geometry. So it may be passed on as the project may",
    }  # fmt: skip
    lines = [
        f"# {name}: to {shipped.does}", "",
        f"    python {shipped.begin.format(folder=where)}", "",
        "| | |", "|---|---|", *(f"| {key} | {text} |" for key, text in rows.items()), "",
        "## Figures", "",
        "Of the best epoch by validation, epoch "
        f"{state['epoch']}, computed in 32 bits: `{command('test.py', *tested_by)}`. "
        f"{moved_in_words(facts)} {shipped.noted}".rstrip(), "",
        *table_of_tests(facts["tests"]), "",
        "## What it cannot do", "", *(f"- {text}" for text in shipped.cannot), "",
    ]  # fmt: skip
    if (folder / MISTAKES).is_file():
        lines += [f"{shipped.shows}:", "", f"![{shipped.shows}]({MISTAKES})", ""]
    if names := state.get("class_names"):
        lines += ["## Classes", "", ", ".join(names), ""]
    return "\n".join(lines)


def moved_in_words(facts: dict[str, Any]) -> str:
    """Say what weights in 16 bits have changed."""
    most = f"{100 * facts['moved']:.2f} points"
    if facts["bits"] == 16:
        most = f"by more than {most}" if facts["moved"] >= 5e-5 else "by as much as 0.01 points"
        return f"With weights in 16 bits instead of 32, no figure differs {most}."
    return f"The weights are in 32 bits, since in 16 a figure would differ by {most}."


def table_of_tests(tests: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of a table with a row a figure and a column a test."""
    values = [one["figures"] | {k: v for k, v in one.items() if k in MORE} for one in tests]
    names = dict.fromkeys(name for own in values for name in own)
    rows = [
        [name.replace("_", " "), *(as_text(own[name]) if name in own else "–" for own in values)]
        for name in names
    ]
    return markdown_table(["", *(one["of"] for one in tests)], rows)
