"""Files laid out in folders: all of them or none, linked or copied, and their number said."""

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lab.console import progress, say
from lab.files import attempt
from lab.folders import unfinished

ENDINGS = (".ppm", ".jpg", ".jpeg", ".png")
Places = Sequence[tuple[Path, Path]]  # files, and where in the layout each belongs


def lay_out(places: Places, target: Path, put: Callable[[Path, Path], None]) -> None:
    """Call `put(file, place)` for each; `target` appears, or is completed, only by whole files.

    Raises:
        LabError: a file cannot be read or written; nothing half-made is left.
    """
    with attempt(f"lay out {target}"), unfinished(target) as partial:
        for file, place in progress(places, label="laying out"):
            (partial / place).parent.mkdir(parents=True, exist_ok=True)
            put(file, partial / place)
        if not target.exists():
            partial.rename(target)
            return
        for _, place in places:
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            (partial / place).rename(target / place)


def say_counts(target: Path, places: Iterable[Path]) -> None:
    """Say how many images a layout holds in each split."""
    for split, count in sorted(Counter(place.parts[0] for place in places).items()):
        say(f"{target / split}: {count:,} images")


def link_or_copy(file: Path, place: Path) -> None:
    """Make a hard link, which takes no room, or a copy where the file system has no links."""
    try:
        os.link(file.resolve(), place)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(file, place)
