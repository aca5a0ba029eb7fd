"""Clips from files: videos, decoded by PyAV, and folders of frames.

clip = read_clip(Path("jump.mp4"), frames=16, stride=2)    # (16, 32, 32, 3) uint8
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image

from lab.console import LabError
from lab.decoding import decode
from lab.files import reason
from lab.folders import printable
from lab.images import Preprocess, on_white, open_image

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
                raise OSError(f"{printable(file.name)}: {reason(error)}") from error
        return
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise OSError("no video in it")
            for frame in islice(container.decode(video=0), 0, None, stride):
                clear = any(component.is_alpha for component in frame.format.components)
                pixels = frame.to_ndarray(format="rgba" if clear else "rgb24")
                yield on_white(Image.fromarray(pixels))
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
        if source.is_file() or is_clip(source):
            found.append(source)
        else:
            found += sorted(filter(is_clip, source.rglob("*")))
    if not found:
        raise LabError(f"no clip in {', '.join(map(str, sources))}")
    return found
