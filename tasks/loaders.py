"""Loaders of a data set's splits, for training and for testing: what is the same for every task."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from lab.batches import check_count
from lab.console import UsageError
from lab.folders import located, near
from lab.runtime import Runtime, check_batch_size
from lab.settings import TrainSettings
from tasks.trained import Trained


def make_loaders(
    modes: Iterable[str],
    read: Callable[[str], Any],
    make: Callable[..., DataLoader],
    settings: TrainSettings,
    runtime: Runtime,
    tested: int = 0,
    normalises: bool = True,
) -> dict[str, DataLoader]:
    """Return a loader of each split.

    Args:
        read: from a mode to its split.
        make: (split, inputs a batch, whether it is for training, and seed, rank, world_size and
            device by name) to a loader.
        tested: inputs a batch of val and test; 0 for those of training.
        normalises: the network trains batch norm, which takes two inputs a process.

    Raises:
        UsageError: a batch is too small.
        LabError: there are too few inputs to train on.
    """
    check_batch_size(settings.batch_size, runtime, normalises)
    own = {"seed": settings.seed, "rank": runtime.rank, "world_size": runtime.world_size}
    loaders = {}
    for mode in modes:
        training = mode == "train"
        size = settings.batch_size if training else tested or settings.batch_size
        loaders[mode] = make(read(mode), size, training, **own, device=runtime.device)
    check_count(len(loaders["train"].dataset), runtime.world_size, normalises)
    return loaders


def make_missing(make: Callable[..., None] | None, runtime: Runtime, *where: Any) -> None:
    """Have one process make what is missing of a data set, where something makes it."""
    if runtime.rank == 0 and make is not None:
        make(*where)
    runtime.wait_for_all()


@dataclass(frozen=True)
class Source:
    """A data set that the scripts know by name.

    Attributes:
        read: to what is there of a split; which arguments it takes, its task says.
        folder: where it is looked for unless told otherwise; None where it has to be told.
        prepare: (folder, ...) makes what is missing; None where nothing can be made.
    """

    read: Callable[..., Any]
    folder: Path | None
    prepare: Callable[..., None] | None = None


Sources = Mapping[str, Source]


def find_folder(sources: Sources, dataset: str, data_root: Path | None) -> Path:
    """Return the folder of a data set: the one given, or its own.

    Raises:
        UsageError: the data set needs a folder that is not given.
    """
    folder = sources[dataset].folder
    if data_root is None and folder is None:
        raise UsageError(f"--dataset {dataset} needs --data_root, the folder of the data set")
    return data_root or near(folder)


def find_made(
    sources: Sources, dataset: str, data_root: Path | None, runtime: Runtime, *more: Any
) -> Path:
    """Return `find_folder`, where what is missing is made first; `more` its `prepare` takes."""
    root = find_folder(sources, dataset, data_root)
    make_missing(sources[dataset].prepare, runtime, root, *more)
    return root


def root_of(trained: Trained, data_root: Path | None) -> Path | None:
    """Return the folder that is given, else the one that a run was trained on, where it says so."""
    kept = trained.state.get("data_root")
    return located(kept) if data_root is None and kept is not None else data_root


def val_share_of(trained: Trained) -> float:
    """Return the share of train that a run has held out as val."""
    return trained.state.get("settings", {}).get("val_share", TrainSettings.val_share)
