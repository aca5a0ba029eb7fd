"""Clips from files: videos, decoded by PyAV, animated pictures, and folders of frames.

clip = read_clip(Path("jump.mp4"), frames=16, stride=2)    # (16, 32, 32, 3) uint8
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from lab.console import LabError
from lab.decoding import decode
from lab.films import clips_in, frames_of
from lab.images import Preprocess

PREPROCESS = Preprocess((32, 32))  # what a frame becomes, whatever its own shape


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
