"""Data sets that are drawn: where each belongs, how much there is of it, and what is said.

draw_missing(DRAWN["street"], Path("data/street"))      # where it belongs, unless it is there
draw(DRAWN["captions"], folder, seed=1)
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError, progress, say
from lab.files import alone, attempt
from lab.folders import DATA_ROOT, near, unfinished
from world import captions, clips, signs, street
from world.parallel import Drawing


@dataclass(frozen=True)
class Drawn:
    """A data set that is drawn.

    Attributes:
        draw: makes it.
        begins: what is said before, of `folder` and `total`.
        ends: what a split holds, said after; empty for nothing.
        place: the one folder of DATA_ROOT that it is drawn into unasked; None for any.
    """

    draw: Drawing
    begins: str
    ends: str = ""
    place: str | None = None


DRAWN = {
    "signs": Drawn(
        signs.draw_dataset,
        "Drawing {total:,} traffic signs into {folder}, once",
        place="",
    ),
    "signs43": Drawn(
        signs.draw_all,
        "Drawing {total:,} traffic signs, of all 43 classes, into {folder}",
        place="signs43",
    ),
    "street": Drawn(
        street.draw_street_dataset,
        "Drawing {total:,} streets into {folder}",
        "pictures, annotations.json, SegmentationClass/",
        "street",
    ),
    "captions": Drawn(
        captions.draw_captions,
        "Drawing {total:,} pictures with captions into {folder}",
        "pictures, captions.json",
        "captions",
    ),
}


def drawn_clips(kind: str, frames: int) -> Drawn:
    """Return the data set of clips of a kind, which is drawn wherever it is missing."""
    begins = f"No clips in {{folder}}: drawing {{total:,}} of {frames} frames, once."
    return Drawn(clips.clips_of(kind, frames), begins)


def draw_missing(drawn: Drawn, folder: Path) -> None:
    """Draw a data set where it belongs, unless it is there.

    Raises:
        LabError: the folder holds some of the splits, but no train/, or cannot be written.
    """
    belongs = drawn.place is None or (
        os.path.realpath(folder) == os.path.realpath(DATA_ROOT / drawn.place)
    )
    if not belongs or (folder / "train").is_dir():
        return
    with alone(folder, "draws into"):
        if not (folder / "train").is_dir():
            draw(drawn, folder)


def draw(
    drawn: Drawn, folder: Path, seed: int = 0, write: Callable[[Path, Path], None] | None = None
) -> None:
    """Draw a data set into a folder.

    Args:
        write: (the folder as it is drawn, the folder to make) puts it into another format.

    Raises:
        LabError: the folder holds some of it already, or cannot be written.
    """
    present = [split for split in drawn.draw.counts if (folder / split).exists()]
    if present and "train" not in present:
        raise LabError(f"{folder} holds {' and '.join(present)} but no train/")
    total = sum(drawn.draw.counts.values())
    say(drawn.begins.format(folder=near(folder), total=total))
    with attempt(f"draw into {folder}"), progress(total=total, label="drawing") as bar:
        if write is None:
            drawn.draw(folder, seed=seed, progress=bar.update)
        else:
            if folder.exists():
                raise LabError(f"{folder} exists already; remove it to draw it anew")
            with unfinished(folder) as making:
                drawn.draw(making / "drawn", seed=seed, progress=bar.update)
                write(making / "drawn", making / "written")
                (making / "written").rename(folder)
    if drawn.ends:
        for split, count in drawn.draw.counts.items():
            where = near(folder / split) if write is None else f"{near(folder)}, {split}"
            say(f"{where}: {count:,} {drawn.ends}")
