"""The fields by name, and what the scripts need of each.

Who adds a field writes one module here that holds a `FIELD`, one suite in `tests/`, and one line
in `FIELDS`. Nothing of torch is imported here, so that flags are read before it is.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.console import LabError, UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

    from torch import nn
    from torch.utils.data import DataLoader, Dataset

    from lab.pictures import Film, Picture
    from lab.runtime import Runtime
    from lab.task import Meter, Task

DEFAULT = "classification"
# Each with its module.
FIELDS = {
    "classification": "tasks.classification",
    "detection": "tasks.detection",
    "segmentation": "tasks.segmentation",
    "video": "tasks.video",
    "diffusion": "tasks.diffusion",
}
SCRIPTS = {"style": "style.py"}  # tasks of runs that scripts of their own make and read


@dataclass(frozen=True)
class Job:
    """What is to be trained on what.

    Attributes:
        loaders: by mode: train, with a `lab.batches.BatchSampler`; val and test where they exist.
        identity: what every checkpoint holds besides the state: configs, class names and so on.
        parameters: groups of the model's, as `lab.optimizers.make_optimizer` takes them.
        subject: what the inputs are, in words ("images of 26 classes from data").
        preview: draws into the run's folder what the data look like; None if nothing does.
        finish: (the trained network, the run's folder) writes there what is made of it in the end;
            None if nothing is.
    """

    task: "Task"
    model: "nn.Module"
    loaders: Mapping[str, "DataLoader"]
    identity: dict[str, Any]
    parameters: list[dict[str, Any]]
    subject: str
    preview: Callable[[Path], None] | None = None
    finish: Callable[["nn.Module", Path], None] | None = None


def one_stage(
    args: "Namespace", resumed: dict[str, Any] | None
) -> list[tuple["Namespace", dict[str, Any] | None]]:
    """Return the stages of a field that has one."""
    return [(args, resumed)]


@dataclass(frozen=True)
class Entry:
    """What compare.py knows of a run.

    Attributes:
        facts: what its last checkpoint holds, without weights and the like.
        history: a row an epoch, as `engine.fit` returns it.
        ranks_by: the figure that runs of its task are compared by.
        best_epoch: by validation; None where no epoch was validated.
        tested: the figure of the best epoch on the test split; None where it could not be tested.
        parameters: number of the network's weights.
    """

    facts: Mapping[str, Any]
    history: list[dict[str, Any]]
    ranks_by: str
    best_epoch: int | None
    tested: float | None
    parameters: int


@dataclass(frozen=True)
class Field:
    """What the scripts need of a field.

    Attributes:
        add_flags: adds to train.py's parser what `TrainSettings` does not hold.
        flags_of: the flags that build a checkpoint's network.
        stages: (flags, checkpoint to go on from) to what is to be trained one after the other, each
            with a folder of its own: flags, and the checkpoint that it goes on from.
        prepare: (flags, runtime, checkpoint to go on from, weights to start from) to a `Job`.
        restore: from a checkpoint to the task and the trained network, on the CPU.
        test_loader: (checkpoint, data folder or None for the run's own, batch size, runtime) to
            the split that the network is tested on.
        report: (test.py's flags, a meter that has seen the test split, that split) prints and
            draws what a test has found.
        read_images: (test.py's flags, checkpoint, network, files, runtime) prints and draws what
            the network makes of pictures.
        find_files: (what `--image` names, folder for what is fetched) to those files; None where
            they are pictures.
        test_flags: those of test.py that no other field has a use for, without their dashes.
        views: what visualize.py can show of a network, by the names of `--type`.
        models: published networks that it can show besides, by the names of `--model`.
        look: (visualize.py's flags, checkpoint or None for a published network, runtime) to the
            pictures of a view.
        summarise: (what compare.py knows of each run, by name) to the lines of a further table;
            None where its own says all.
        suggestions: arguments of visualize.py worth trying on a run, from train.py's flags.
        defaults: of `TrainSettings`, where the field's own differ.
    """

    add_flags: Callable[["ArgumentParser"], None]
    flags_of: Callable[[dict[str, Any]], dict[str, Any]]
    prepare: Callable[["Namespace", "Runtime", dict | None, dict | None], Job]
    restore: Callable[[dict[str, Any]], tuple["Task", "nn.Module"]]
    test_loader: Callable[[dict[str, Any], Path | None, int, "Runtime"], "DataLoader"]
    report: Callable[["Namespace", "Meter", "Dataset"], None]
    read_images: Callable[["Namespace", dict, "nn.Module", list[Path], "Runtime"], None]
    find_files: Callable[[Sequence[str], Path], list[Path]] | None = None
    test_flags: tuple[str, ...] = ()
    stages: Callable[["Namespace", dict | None], list[tuple["Namespace", dict | None]]] = one_stage
    views: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    look: Callable[["Namespace", dict | None, "Runtime"], Iterable["Picture | Film"]] | None = None
    summarise: Callable[[Mapping[str, "Entry"]], list[str]] | None = None
    suggestions: Callable[["Namespace"], list[list[str]]] = lambda args: []
    defaults: Mapping[str, Any] = field(default_factory=dict)


def load(name: str) -> Field:
    """Return a field by name.

    Raises:
        UsageError: there is none.
    """
    if name not in FIELDS:
        raise UsageError(f"unknown --task {name!r}; there are {', '.join(FIELDS)}")
    return import_module(FIELDS[name]).FIELD


def field_of(state: dict[str, Any], path: Path) -> Field:
    """Return the field that a loaded checkpoint belongs to; the scaffold's classify.

    Raises:
        LabError: it belongs to a script of its own, or to none that is known.
    """
    name = state.get("task", DEFAULT)
    if name in SCRIPTS:
        raise LabError(f"{path} holds a {name} network: it is for python {SCRIPTS[name]}")
    if name not in FIELDS:
        raise LabError(f"{path} is of an unknown task {name!r}; there are {', '.join(FIELDS)}")
    return load(name)
