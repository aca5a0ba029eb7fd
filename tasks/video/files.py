"""Clips from files: videos, decoded by PyAV, and folders of frames.

clip = read_clip(Path("jump.mp4"), frames=16, stride=2)    # (16, 32, 32, 3) uint8
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from datasets import CACHE_BUDGET, MODES, class_folders, held_out
from lab.console import LabError, progress, say
from lab.folders import printable
from lab.images import Preprocess, open_image, say_left_out

PREPROCESS = Preprocess((32, 32))  # what a frame becomes, whatever its own shape
VIDEOS = (".mp4", ".avi", ".webm", ".gif", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v")


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder, in the order of their names."""
    known = Image.registered_extensions().keys() - set(VIDEOS)
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in known)


def is_clip(path: Path) -> bool:
    """True for a video's file, by its name, and for a folder of frames."""
    return bool(frame_files(path)) if path.is_dir() else path.suffix.lower() in VIDEOS


def frames_of(path: Path, stride: int) -> Iterator[Image.Image]:
    """Yield every `stride`-th frame of a video file or of a folder of images.

    Raises:
        OSError: it cannot be read; the text says why.
    """
    if path.is_dir():
        for file in frame_files(path)[::stride]:
            try:
                yield open_image(file)
            except OSError as error:
                raise OSError(f"{printable(file.name)}: {error.strerror or error}") from error
        return
    import av

    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise OSError("no video in it")
            for frame in islice(container.decode(video=0), 0, None, stride):
                yield frame.to_image()
    except av.error.FFmpegError as error:
        raise OSError(f"damaged or no video ({error.strerror})") from error


def read_clip(path: Path, frames: int, stride: int) -> np.ndarray:
    """Read the beginning of a clip: (frames, 32, 32, 3) uint8, of every `stride`-th frame.

    Raises:
        OSError: it cannot be read, or is too short.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise OSError("empty file")
    clip = [PREPROCESS.fit(frame) for frame in islice(frames_of(path, stride), frames)]
    if len(clip) < frames:
        raise OSError(f"too short: {len(clip)} of {frames} frames, {stride} apart")
    return np.stack(clip)


def read_clips(
    paths: Sequence[Path], frames: int, stride: int, label: str
) -> tuple[list[np.ndarray], dict[Path, str]]:
    """Read clips; return those that can be read, and what is wrong with the others."""

    def read(path: Path) -> np.ndarray | str:
        try:
            return read_clip(path, frames, stride)
        except OSError as error:
            return error.strerror or str(error)

    # Threads suffice: PyAV decodes outside the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        results = list(progress(pool.map(read, paths), total=len(paths), label=label))
    pairs = list(zip(paths, results, strict=True))
    clips = [result for _, result in pairs if not isinstance(result, str)]
    return clips, {path: result for path, result in pairs if isinstance(result, str)}


def find_clips(
    root: Path, mode: str, val_share: float
) -> tuple[Path, tuple[str, ...], list[Path], list[int]]:
    """Find the clips of a split in `root/mode/CLASS/`.

    Returns:
        The folder they are in, the classes, the clips and their labels.

    Raises:
        LabError: no such split, or no class in it.
    """
    if not root.is_dir():
        raise LabError(f"no data folder {root}; --data_root takes one with train/, val/, test/")
    parted = mode != "test" and not (root / "val").is_dir()
    folder = root / (MODES[0] if parted else mode)
    if not folder.is_dir():
        raise LabError(f"{root} has no {folder.name}/; it needs a folder of clips a class there")
    try:
        classes = class_folders(folder)
        found = [sorted(filter(is_clip, (folder / name).iterdir())) for name in classes]
    except OSError as error:
        raise LabError(f"cannot read {error.filename}: {error.strerror}") from error
    if not classes:
        raise LabError(f"{folder} has no class folders; it needs a folder of clips a class")
    paths = [path for own in found for path in own]
    labels = [label for label, own in enumerate(found) for _ in own]
    if parted:
        held = held_out(labels, range(len(labels)), val_share)
        chosen = [index for index, out in enumerate(held) if out == (mode == "val")]
        paths, labels = [paths[index] for index in chosen], [labels[index] for index in chosen]
        if mode == "val":
            say(f"{root} has no val/: {len(paths):,} clips of train/ are held out (--val_share)")
    return folder, classes, paths, labels


def read_folder(
    root: Path, mode: str, frames: int, stride: int, val_share: float
) -> tuple[tuple[str, ...], np.ndarray, list[int], list[str]]:
    """Read the clips of a split; broken and too short ones are named and left out.

    Returns:
        Classes, clips (N, T, H, W, 3) uint8, labels, and names.

    Raises:
        LabError: no such split, too many clips for memory, or a class without any.
    """
    folder, classes, paths, labels = find_clips(root, mode, val_share)
    if len(paths) * frames * np.prod(PREPROCESS.shape) > CACHE_BUDGET:
        limit = f"{CACHE_BUDGET / 2**30:.1f} GiB"
        raise LabError(f"{folder}: {len(paths):,} clips of {frames} frames would take over {limit}")
    clips, problems = read_clips(paths, frames, stride, f"reading {folder}")
    say_left_out(folder, len(paths), problems)
    kept = [(path, k) for path, k in zip(paths, labels, strict=True) if path not in problems]
    for label, name in enumerate(classes):
        if mode != "val" and label not in [own for _, own in kept]:
            raise LabError(f"{folder / name} holds no clip of {frames} frames, {stride} apart")
    if not kept:
        raise LabError(f"{folder} is too small to hold clips out of it; add {root / 'val'}")
    names = [f"{path.parent.name}/{printable(path.name)}" for path, _ in kept]
    own = [label for _, label in kept]
    return tuple(map(printable, classes)), np.stack(clips), own, names


def clip_files(sources: Sequence[str]) -> list[Path]:
    """Return the clips that are named: videos, folders of frames, folders of either to any depth.

    Raises:
        LabError: a source does not exist, or holds no clip.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.exists():
            raise LabError(f"no clip {source}; give a video, or a folder of frames")
        if source.is_file() or is_clip(source):
            found.append(source)
        else:
            found += sorted(filter(is_clip, source.rglob("*")))
    if not found:
        raise LabError(f"no clip in {', '.join(map(str, sources))}")
    return found
