"""Clips from files: videos, decoded by PyAV, animated pictures, and folders of frames.

clip = read_clip(Path("jump.mp4"), frames=16, stride=2)    # (16, 32, 32, 3) uint8
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from lab.console import LabError
from lab.decoding import decode
from lab.files import reason
from lab.folders import in_order, printable
from lab.images import Preprocess, on_white, open_image

PREPROCESS = Preprocess((32, 32))  # what a frame becomes, whatever its own shape
VIDEOS = (
    ".mp4", ".avi", ".webm", ".gif", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".wmv", ".asf",
    ".3gp", ".3g2", ".ogv", ".flv", ".mts", ".m2ts", ".vob",
)  # fmt: skip
ANIMATED = (".webp", ".apng")  # may hold one picture or many, which PyAV does not tell


def is_animated(path: Path) -> bool:
    """True for a file of several pictures that is played by Pillow."""
    if path.suffix.lower() not in ANIMATED:
        return False
    try:
        with Image.open(path) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # arbitrary bytes make decoders raise nearly anything; it may be a frame
        return False


def is_video(path: Path) -> bool:
    """True for a video's file, by its name, and for an animated picture."""
    return path.suffix.lower() in VIDEOS or is_animated(path)


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder, in the order of their names, numbers by value."""
    known = Image.registered_extensions().keys() - set(VIDEOS)
    images = (path for path in folder.iterdir() if path.suffix.lower() in known)
    return in_order(path for path in images if path.name[0] != "." and not is_animated(path))


def clips_in(path: Path) -> Iterator[Path]:
    """Yield the clips at and below a path: videos, and folders with frames, to any depth.

    A link to a folder is followed no further than to its frames: it may lead back here.
    """
    if not path.is_dir():
        if is_video(path):
            yield path
        return
    if frame_files(path):
        yield path
    for inside in in_order(path.iterdir()):
        if inside.name[0] == ".":
            continue
        if not (inside.is_symlink() and inside.is_dir()):
            yield from clips_in(inside)
        elif frame_files(inside):
            yield inside


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
                raise OSError(f"{printable(file.name)}: {reason(error)}") from error
        return
    if is_animated(path):
        with Image.open(path) as image:
            for frame in islice(ImageSequence.Iterator(image), 0, None, stride):
                yield on_white(frame).convert("RGB")
        return
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise OSError("no video in it")
            for frame in islice(container.decode(video=0), 0, None, stride):
                clear = any(component.is_alpha for component in frame.format.components)
                pixels = frame.to_ndarray(format="rgba" if clear else "rgb24")
                # A phone turns no pixels: it notes how it was held.
                image = Image.fromarray(pixels).rotate(frame.rotation, expand=True)
                yield on_white(image)
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

    def read(path: Path) -> np.ndarray:
        return read_clip(path, frames, stride)

    decoded = list(decode(read, paths, label))
    clips = [clip for _, clip, problem in decoded if not problem]
    return clips, {path: problem for path, _, problem in decoded if problem}


def clip_files(sources: Sequence[str]) -> list[Path]:
    """Return the clips that are named: videos, folders of frames, folders of either to any depth.

    Raises:
        LabError: a source does not exist, or holds no clip.
    """
    found: list[Path] = []
    for source in map(Path, sources):
        if not source.exists():
            raise LabError(f"no clip {source}; give a video, or a folder of frames")
        found += [source] if source.is_file() else clips_in(source)
    if not found:
        raise LabError(f"no clip in {', '.join(map(str, sources))}")
    return found
