"""A trained network with all that was loaded with it: made once by a script, then handed on."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from datasets import SOURCES, Source
from lab import checkpoint
from lab.console import LabError, UsageError, command
from lab.images import Preprocess
from lab.objective import Objective
from lab.run import read_sessions
from lab.runtime import Runtime, place, start_as
from networks import NETWORKS
from tasks import DEFAULT, RunFlags, Task, task_of
from tasks.shipped import shipped_with, written_to

READING = ("--ckpt_path", "--read", "--model", "--weights")  # flags that a shipped network serves


@dataclass(frozen=True)
class Trained:
    """What a script has loaded.

    Attributes:
        path: of the checkpoint.
        state: what it holds.
        network: on the runtime's device, in evaluation mode.
        runtime: in the precision of the training, unless another is asked for.
    """

    task: Task
    path: Path
    state: dict[str, Any]
    network: nn.Module
    objective: Objective
    runtime: Runtime

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the scaffold's checkpoints say their number alone."""
        names = self.state.get("class_names")
        return tuple(map(str, names or range(self.state["configs"]["num_classes"])))

    @property
    def results(self) -> Path:
        """The folder that what is made of it is written into: its run's.

        A network that comes with the project stays as it is; of that, a folder of `visualized`.
        """
        shipped = self.state.get("shipped")
        return written_to(shipped["name"]) if shipped else self.path.parent


def load_run(
    flags: RunFlags, device: str | None, precision: str | None, task: str | None
) -> Trained:
    """Load the network that flags name; device and precision as of `load_trained`.

    Args:
        task: of the run that is meant; None for any.

    Raises:
        LabError: no such run; says where one is, or how to train it.
        UsageError: a file is named, or the run is not of the `--task` that is.
    """
    folder = flags.ckpt_path
    if folder.is_file():
        epoch = checkpoint.EPOCH_FILE.fullmatch(folder.name)
        meant = ["--ckpt_path", str(folder.parent), *(["--epoch", epoch[1]] if epoch else [])]
        raise UsageError(f"{folder} is a file; --ckpt_path takes its folder: {shlex.join(meant)}")
    if not checkpoint.epochs(folder):
        if (folder / checkpoint.INTERRUPTED).is_file():
            more = command("train.py", "--resume", folder)
            raise LabError(f"{folder} has no finished epoch; go on with: {more}")
        raise LabError(f"no checkpoints in {folder}; {another_run(task, folder)}")
    trained = load_trained(checkpoint.find(folder, flags.epoch), device, precision)
    if flags.task not in (None, trained.task.name):
        kind = f"{trained.path} is of --task {trained.task.name}"
        raise UsageError(f"{kind}; {another_run(flags.task, folder)}")
    return trained


def another_run(task: str | None, folder: Path, flag: str = "--ckpt_path") -> str:
    """Say which folder, near one that is no use, holds a run, and the command that trains one.

    Args:
        task: of the run; None for any.
        flag: that takes the folder.
    """
    # Set aside in the folder itself, the newest first; then in it, where that is one of runs; then
    # beside it.
    earlier = sorted(folder.glob("previous_*"), key=lambda place: (len(place.name), place.name))
    inside = sorted(folder.glob("*")) if flag == "--ckpt_path" else []
    beside = sorted([*folder.parent.glob("*"), *folder.parent.glob("*/previous_*")])
    places = (*reversed(earlier), *inside, *beside)
    kinds = {other: task_in(other) for other in places if other != folder}
    others = [other for other, kind in kinds.items() if kind and kind == (task or kind)]
    others += shipped_with(task) if flag in READING else []
    which = () if task in (None, DEFAULT) else ("--task", task)
    where = () if checkpoint.epochs(folder) else ("--ckpt_path", folder)
    training = f"train one: {command('train.py', *which, *where)}"
    if not others:
        return training
    kind = kinds.get(others[0])  # none of what comes with the project, which has no record
    what = f"holds one of {kind}" if kind else "comes with the project"
    return f"{others[0]} {what} ({flag} {shlex.quote(str(others[0]))}); or {training}"


def task_in(folder: Path) -> str | None:
    """Return the task of the run in a folder, by its record; None where there is none."""
    sessions = read_sessions(folder) if checkpoint.epochs(folder) else None
    trained = sessions[-1].get("trained") if sessions else None
    return trained.get("task") if isinstance(trained, dict) else None


def load_trained(path: Path, device: str | None, precision: str | None = None) -> Trained:
    """Load the network of a checkpoint.

    Args:
        precision: of the forward pass; None for that of the training.

    Raises:
        LabError: no such checkpoint, or a damaged one.
    """
    state = checkpoint.load(path)
    task = task_of(state, path)
    objective, network = task.restore(state)
    runtime = start_as(state, device, precision)
    return Trained(task, path, state, place(network.eval(), runtime), objective, runtime)


def preprocess_of_run(state: Mapping[str, Any]) -> Preprocess:
    """Return how pictures become the input of a run's network.

    Of one that does not say, as a checkpoint of the course's scaffold, it is that of the data set
    that the network was made for.
    """
    if "preprocess" in state:
        return Preprocess(**state["preprocess"])
    name = state.get("network", "classifier")
    if name not in NETWORKS:
        return Preprocess()
    return made_for(name, SOURCES["mnist" if name == "mnist_cnn" else "signs"])


def made_for(network: str, source: Source) -> Preprocess:
    """Return how the pictures of a data set become the input of a network of ours."""
    size = NETWORKS[network].config.image_size
    return Preprocess((size, size), source.mean, source.std)
