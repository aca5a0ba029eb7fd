"""Data sets that are drawn: where each belongs, how much there is of it, and what is said.

draw_missing(DRAWN["street"], Path("data/street"))      # where it belongs, unless it is there
draw(DRAWN["captions"], folder, seed=1)
"""

import os
from dataclasses import dataclass
from pathlib import Path

from lab.console import LabError, progress, say
from lab.files import attempt
from lab.folders import DATA_ROOT, near
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
        "No data in {folder}: drawing the built-in one, {total:,} traffic signs, once.",
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
    present = [split for split in drawn.draw.counts if (folder / split).exists()]
    if present:
        raise LabError(f"{folder} holds {' and '.join(present)} but no train/")
    draw(drawn, folder)


def draw(drawn: Drawn, folder: Path, seed: int = 0) -> None:
    """Draw a data set into a folder.

    Raises:
        LabError: the folder holds some of it already, or cannot be written.
    """
    total = sum(drawn.draw.counts.values())
    say(drawn.begins.format(folder=near(folder), total=total))
    with attempt(f"draw into {folder}"), progress(total=total, label="drawing") as bar:
        drawn.draw(folder, seed=seed, progress=bar.update)
    if drawn.ends:
        for split, count in drawn.draw.counts.items():
            say(f"{near(folder / split)}: {count:,} {drawn.ends}")
