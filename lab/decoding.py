"""Many files decoded at once, in threads, and as many of them kept as memory may hold.

for path, pixels, problem in decode(read, paths, "reading data/train"): ...
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np

from lab.console import progress, say
from lab.files import reason

CACHE_BUDGET = 2 * 2**30  # bytes of decoded images that may be held in memory, a split

File = TypeVar("File")
Content = TypeVar("Content")


def decode(
    read: Callable[[File], Content], files: Sequence[File], label: str
) -> Iterator[tuple[File, Content | None, str]]:
    """Yield each file in its order with what `read` makes of it, and no text; or None and a text.

    The text says why the file cannot be used: that of an OSError that `read` raises.
    """

    def attempt(file: File) -> tuple[File, Content | None, str]:
        try:
            return file, read(file), ""
        except OSError as error:
            return file, None, reason(error)

    # Threads suffice: Pillow and PyAV decode and resize outside the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        yield from progress(pool.map(attempt, files), total=len(files), label=label)


def decode_pictures(
    read: Callable[[File], tuple[np.ndarray, Content]], files: Sequence[File], label: str
) -> tuple[list[tuple[File, Content]], list[np.ndarray] | None, list[tuple[File, str]]]:
    """Decode pictures and what is known of them; the pictures are kept if all of them fit.

    Args:
        read: to pixels, and what is known of them; raises as in `decode`.

    Returns:
        The readable files, each with what is known; their pixels, or None where they would not
        fit `CACHE_BUDGET`; the other files, each with what is wrong with it.
    """
    readable, pictures, problems, room = [], [], [], CACHE_BUDGET
    for file, content, problem in decode(read, files, label):
        if problem:
            problems.append((file, problem))
            continue
        pixels, known = content
        readable.append((file, known))
        room -= pixels.nbytes
        if room < 0:
            pictures = None
        if pictures is not None:
            pictures.append(pixels)
    return readable, pictures, problems


def fits_in_memory(count: int, shape: Sequence[int]) -> bool:
    """True where `count` uint8 arrays of a shape stay within `CACHE_BUDGET`."""
    return count * math.prod(shape) <= CACHE_BUDGET


def budget() -> str:
    """Return `CACHE_BUDGET` as it is said."""
    return f"{CACHE_BUDGET / 2**30:.1f} GiB"


def say_read_from_disk(folder: Path, count: int, what: str) -> None:
    """Say that what does not fit in memory is decoded again for each batch."""
    say(
        f"{folder}: {count:,} {what} would take more than {budget()} of memory, so they are read "
        "from disk batch by batch (see --num_workers)"
    )
