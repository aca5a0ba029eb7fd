"""Data sets that torchvision downloads and reads.

download("MNIST", "MNIST", instead="digits", root=Path("data"))
source = read_downloaded("MNIST", "MNIST", Path("data"), train=True)
"""

from pathlib import Path
from typing import Any

from lab.console import LabError, say
from lab.files import alone
from lab.folders import unfinished


def download(name: str, folder: str, instead: str, root: Path) -> None:
    """Have torchvision download a data set, unless its folder is there; whole or not at all.

    Args:
        name, folder: of the data set's class, and of what torchvision keeps it in, under `root`.
        instead: the `--dataset` that needs no connection.

    Raises:
        LabError: no connection, or `root` cannot be written.
    """
    target = root / folder
    if target.is_dir():
        return
    with alone(root, "downloads into"):
        if not target.is_dir():
            say(f"No {name} in {root}: downloading it, once.")
            _download(name, target, instead)


def _download(name: str, target: Path, instead: str) -> None:
    root, folder = target.parent, target.name
    try:
        with unfinished(target) as incoming:
            torchvision_set(name)(incoming, download=True)
            (incoming / folder).rename(target)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise LabError(
            f"no {name} in {root}, and it could not be downloaded ({reason}); without a "
            f"connection, take --dataset {instead}, or put torchvision's files into {target}"
        ) from error


def read_downloaded(name: str, folder: str, root: Path, train: bool) -> Any:
    """Return one of torchvision's data sets; a LabError says that files are missing or damaged."""
    try:
        return torchvision_set(name)(root, train=train)
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
        mend = "remove it to have it downloaded anew"
        raise LabError(f"{root / folder} is incomplete or damaged; {mend}") from error


def torchvision_set(name: str) -> Any:
    """Return the class of one of torchvision's data sets."""
    from torchvision import datasets  # a second that is spared whoever has no use for it

    return getattr(datasets, name)
