"""Where things lie: the project's own folders, those a checkpoint names, those still being made."""

import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.console import LabError

# What the tools of others call the folder, or the list, of a split, and the folders of pictures and
# of what is known of them. All tasks take these, in capitals too.
SPLITS = {
    "train": ("train", "training", "trainset"),
    "val": ("val", "valid", "validation", "valset", "dev"),
    "test": ("test", "testing", "testset"),
}
PICTURES = ("images", "jpegimages", "image", "imgs", "img", "pictures", "photos")
NOTES = ("labels", "annotations", "masks", "label", "annotation", "mask", "xmls", "xml", "annots")

PROJECT = Path(__file__).resolve().parent.parent
DATA_ROOT = PROJECT / "data"  # the only folder that data is drawn into without being asked
PRETRAINED = PROJECT / "pretrained"  # networks that come with the project, a folder each


def near(path: Path) -> Path:
    """Return a path as seen from the current folder where it lies inside, else as it is."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def printable(name: str) -> str:
    r"""Return a file's name with bytes that are no UTF-8 written as \xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def folders_in(folder: Path, names: Sequence[str]) -> list[Path]:
    """Return the folders inside another that have one of some names, small or in capitals."""
    try:
        inside = [path for path in folder.iterdir() if path.name.lower() in names and path.is_dir()]
    except OSError:  # it is none, or nobody may look into it: what reads it will say so
        return []
    return sorted(inside, key=lambda path: (names.index(path.name.lower()), path.name))


def split_folder(root: Path, mode: str) -> Path | None:
    """Return the folder of a split, train, val or test, whatever its author calls it.

    Raises:
        LabError: there are several.
    """
    folders = folders_in(root, SPLITS[mode])
    if len(folders) > 1:
        both = " and ".join(f"{path.name}/" for path in folders)
        raise LabError(f"{root} holds {both}, both names of {mode}: leave one of them there")
    return folders[0] if folders else None


def in_order(paths: Iterable[Path]) -> list[Path]:
    """Return paths in the order of their names, numbers in them by value: frame2 before frame10."""

    def key(path: Path) -> tuple[list[list[str | int]], Path]:
        split = (re.split("([0-9]+)", name) for name in path.parts)
        return [[int(x) if k % 2 else x for k, x in enumerate(words)] for words in split], path

    return sorted(paths, key=key)


def stored(path: Path) -> str:
    """Return what a checkpoint keeps of a path, so that `located` finds it from any folder."""
    whole = Path(os.path.abspath(path))
    return whole.relative_to(PROJECT).as_posix() if whole.is_relative_to(PROJECT) else str(whole)


def located(text: str) -> Path:
    """Return the folder that a checkpoint names.

    A relative name is one of the project's; in checkpoints of earlier versions it can also be one
    of the folder that `train.py` was started in, which is then the current one.
    """
    places = (PROJECT / text, Path.cwd() / text)  # both `text` itself where that is absolute
    return near(next((place for place in places if os.path.isdir(place)), places[0]))


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Give the name of a hidden folder beside `target` to make it in; in the end it is gone.

    What earlier processes left of theirs when they were killed is removed first.
    """
    pattern = f".{glob.escape(target.name)}-*"
    for leftover in target.parent.glob(pattern):
        pid = leftover.name.removeprefix(f".{target.name}-")
        if pid.isdecimal() and not is_alive(int(pid)):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = target.parent / f".{target.name}-{os.getpid()}"
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_alive(pid: int) -> bool:
    """True while another process has this number."""
    if os.name == "nt":  # there signal 0 would end the process: better a folder too many
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return pid != os.getpid()  # ours began after whatever is left under its number
