"""Folders of images, `root/mode/class/*`: decoded once into one array, which is kept between runs.

classes, paths, labels, images = read_images(root, "train", Preprocess((32, 32)), val_share=0.1)
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lab.console import LabError, say
from lab.decoding import decode, fits_in_memory, say_read_from_disk
from lab.files import attempt, reason
from lab.folders import (
    DATA_ROOT,
    NOTES,
    PICTURES,
    SPLITS,
    folders_in,
    printable,
    split_folder,
    unfinished,
)
from lab.holdout import held_out_tracks
from lab.images import Preprocess, open_image, say_left_out

MODES = tuple(SPLITS)
CACHE_FOLDER = DATA_ROOT / ".cache"
CACHE_VERSION = "4"  # raise when `open_image` or `Preprocess.fit` changes what it returns


class File(NamedTuple):
    """What lies in a class folder; of a link that leads nowhere, size and time are 0."""

    path: Path
    label: int
    size: int = 0
    modified: int = 0


def class_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders in a split's folder, sorted."""
    with attempt(f"read {folder}"):
        return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))


def list_files(folder: Path, classes: Sequence[str]) -> list[File]:
    """Return the files in the class folders of a split's folder, to any depth, by their names."""
    files = []
    for label, name in enumerate(classes):
        files += _files_below(folder / name, label, ())
    return files


def _files_below(folder: Path, label: int, above: tuple[Path, ...]) -> Iterator[File]:
    """Yield what is not hidden, files before folders; no link leads back to what is `above`."""
    place = folder.resolve()
    if any(outer.is_relative_to(place) for outer in above):
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: (os.path.isdir(entry), entry.name)):
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        try:
            status = entry.stat()
        except OSError:  # a link to nothing or to itself: reading it will say so
            yield File(path, label)
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from _files_below(path, label, (*above, place))
        elif stat.S_ISREG(status.st_mode):
            yield File(path, label, status.st_size, status.st_mtime_ns)


def holds_classes(
    root: Path, list_files: Callable[[Path, Sequence[str]], list[File]] = list_files
) -> bool:
    """True of a folder without splits that holds classes: several folders, files in each."""
    if any(split_folder(root, mode) for mode in MODES):
        return False
    if folders_in(root, PICTURES) and folders_in(root, NOTES):  # of another task
        return False
    classes = class_folders(root)
    return len(classes) > 1 and all(list_files(root, [name]) for name in classes)


def find_files(
    data_root: Path,
    mode: str,
    val_share: float,
    what: str = "images",
    list_files: Callable[[Path, Sequence[str]], list[File]] = list_files,
    hold_out: Callable[[Sequence[int], Sequence[Path], float], np.ndarray] = held_out_tracks,
) -> tuple[Path, tuple[str, ...], list[File], bool]:
    """Find the files of a split; where it is held out of train/, that is said.

    Args:
        what: the folders hold, as a user is told.
        list_files: (folder of a split, its classes) to what counts.
        hold_out: (labels, paths, share) to which of them are.

    Returns:
        The folder they are in, the names of its class folders, the files, and whether they are
        train/ parted into two.

    Raises:
        LabError: no such split, no classes in it, other classes than in train/, or a folder that
            cannot be read.
    """
    needed = f"it needs a folder of {what} a class"
    if not os.path.isdir(data_root):
        takes = "--data_root takes one with train/, val/, test/"
        raise LabError(f"no data folder {data_root}; {takes}")
    parted = val_share > 0 and mode != "test" and split_folder(data_root, "val") is None
    wanted = "train" if parted else mode
    folder = split_folder(data_root, wanted)
    if folder is None and parted and holds_classes(data_root, list_files):
        folder = data_root
        if mode == "train":
            say(f"{data_root} has no train/: its folders are taken for classes")
    if folder is None:
        raise LabError(f"{data_root} has no {wanted}/; {needed} there")
    classes = class_folders(folder)
    try:
        files = list_files(folder, classes)
    except OSError as error:
        raise LabError(f"cannot read {error.filename}: {error.strerror}") from error
    if not classes:
        raise LabError(f"{folder} has no class folders; {needed}")
    training = split_folder(data_root, "train")
    if training not in (None, folder):
        check_classes(classes, class_folders(training), folder, "train/")
    if parted:
        paths, labels = [file.path for file in files], [file.label for file in files]
        held = hold_out(labels, paths, val_share)
        files = [file for file, out in zip(files, held, strict=True) if out == (mode == "val")]
        if mode == "val":
            count = f"{len(files):,} {what} of {folder.name}/"
            say(f"{data_root} has no val/: {count} are held out (--val_share)")
    return folder, classes, files, parted


def read_images(
    data_root: Path, mode: str, preprocess: Preprocess, val_share: float
) -> tuple[tuple[str, ...], list[Path], np.ndarray, np.ndarray | None]:
    """Read `data_root/mode/class/*`, from the cache if no file has changed since.

    Files that are no readable images are named and left out.

    Args:
        val_share: of train/, held out as val where there is no val/ (see `held_out`); 0 to take
            the folders as they are.

    Returns:
        The names of the class folders; the readable files; labels, int64 (N,); images at the
        network's size, uint8 (N, H, W, C), or None where they would not fit in memory.

    Raises:
        LabError: as in `find_files`, or a class without a readable image.
    """
    folder, classes, files, parted = find_files(data_root, mode, val_share)
    fits = fits_in_memory(len(files), preprocess.shape)
    if not fits:
        say_read_from_disk(folder, len(files), "images")
    place = os.path.join(os.path.realpath(data_root), mode)
    images, texts = _decode(folder, place, files, preprocess, fits)
    problems = {file.path: text for file, text in zip(files, texts, strict=True) if text}
    say_left_out(folder, len(files), problems)
    readable = [file for file in files if file.path not in problems]
    labels = np.array([file.label for file in readable], np.int64)
    counts = np.bincount(labels, minlength=len(classes))
    lent = parted and mode == "val"
    if lent and not readable:
        raise LabError(f"{folder} is too small to hold images out of it; add {data_root / 'val'}")
    if not lent and not counts.all():  # of train/, a class of one image has none to lend
        name = classes[int(counts.argmin())]
        raise LabError(f"{folder / name} holds no readable image; fill the class or remove it")
    names = tuple(map(printable, classes))
    return names, [file.path for file in readable], labels, images if fits else None


def check_classes(
    given: Sequence[str], expected: Sequence[str], where: Path | str, whose: str
) -> None:
    """Raise a LabError that names the difference unless two lists of class names are the same."""
    if tuple(given) != tuple(expected):
        sides = {"lacks": set(expected) - set(given), "adds": set(given) - set(expected)}
        parts = []
        for word, names in sides.items():
            more = f" and {len(names) - 3} more" * (len(names) > 3)
            parts += [f"{word} {', '.join(sorted(names)[:3])}{more}"] * bool(names)
        raise LabError(f"{where} has other classes than {whose}: it {' and '.join(parts)}")


# ---------------------------------------------------------------- the cache


def _decode(
    folder: Path, place: str, files: Sequence[File], preprocess: Preprocess, keep: bool
) -> tuple[np.ndarray, list[str]]:
    """Return the readable images, (n, H, W, C), and of each file what is wrong with it, if at all.

    Args:
        folder: that the files are in; once it is gone, so is the cache.
        place: tells the cache of these images from others.
        keep: return the images; else only the problems.
    """
    key = hashlib.sha256(repr((CACHE_VERSION, preprocess, keep)).encode())
    for file in files:
        name = f"{file.path.relative_to(folder)}\0{file.size}\0{file.modified}\n"
        key.update(os.fsencode(name))
    size = "x".join(map(str, preprocess.shape))
    cache = CACHE_FOLDER / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}_{size}.npz"
    try:
        with np.load(cache, allow_pickle=False) as cached:
            if cached["key"] == key.hexdigest():
                return cached["images"], cached["problems"].tolist()
    except Exception:  # absent, of another layout, or damaged in any way: made anew below
        pass

    def read(file: File) -> np.ndarray:
        return preprocess.fit(open_image(file.path))

    images = np.empty((len(files) if keep else 0, *preprocess.shape), np.uint8)
    problems, readable = [], 0
    for _, pixels, problem in decode(read, files, f"reading {folder}"):
        problems.append(problem)
        if keep and not problem:
            images[readable] = pixels
            readable += 1
    images = images[:readable]
    made = {"folder": os.path.realpath(folder), "key": key.hexdigest()}
    _save_cache(cache, **made, images=images, problems=np.array(problems, dtype=str))
    return images, problems


def _save_cache(cache: Path, **arrays: np.ndarray | str) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        for other in cache.parent.glob("*.npz"):
            if not _is_current(other):
                other.unlink(missing_ok=True)
        with unfinished(cache) as folder:
            folder.mkdir()
            np.savez(folder / cache.name, **arrays)
            (folder / cache.name).replace(cache)
    except OSError as error:  # a read-only clone or a full disk: the next run reads the files again
        say(f"decoded images are not kept for the next run: {reason(error)}")


def _is_current(cache: Path) -> bool:
    """True unless the folder that a cache was made from is gone."""
    try:
        with np.load(cache, allow_pickle=False) as cached:
            return os.path.isdir(str(cached["folder"]))
    except Exception:  # damaged in any way
        return False
