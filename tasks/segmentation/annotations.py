"""Where pictures and their label images lie: VOC's layout, CamVid's, and any folder's.

    listing = read_voc(Path("data"), "train")
    listing.classes, listing.pictures[0].path, listing.pictures[0].label

A reader takes the folder of a data set and one of `lab.image_folder.MODES`, and returns what is
labelled there, unread, or None where there is no such split.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lab.console import LabError
from tasks.annotated import find_voc
from tasks.segmentation.labels import (
    CAMVID_CLASSES,
    IGNORED,
    VOC_CLASSES,
    VOC_COLORMAP,
    VOC_OPEN,
    Colour,
)
from world.street import PALETTE

NOT_LABELLED = len(CAMVID_CLASSES)  # CamVid's number of it
CLASSES_FILE = "classes.txt"


class LabelledPicture(NamedTuple):
    """A picture and its label image, which may be missing; None where its place is not known."""

    path: Path
    label: Path | None


class Listing(NamedTuple):
    """What is labelled in one split.

    Attributes:
        source: the file or folder that says so.
        classes: names, by number; None where nothing says how many there are.
        colours: of the numbers, in label images that are colours; none where nothing says them.
        pictures: with their labels.
        ignored: the number, besides 255, of what is not labelled.
    """

    source: Path
    classes: tuple[str, ...] | None
    colours: Sequence[Colour]
    pictures: list[LabelledPicture]
    ignored: int = IGNORED


def read_voc(root: Path, mode: str) -> Listing | None:
    """Read what torchvision's VOCSegmentation downloads; of several years, the latest."""
    devkit = find_voc(root, "Segmentation")
    if devkit is None:
        return None
    colours = (*VOC_COLORMAP, VOC_OPEN)
    return read_table(devkit, mode, VOC_CLASSES, colours, len(VOC_CLASSES))


def read_street(root: Path, mode: str) -> Listing | None:
    """Read drawn streets: VOC's layout a split, and CamVid's classes."""
    return read_table(root / mode, mode, CAMVID_CLASSES, PALETTE, NOT_LABELLED)


def read_table(
    folder: Path, mode: str, classes: tuple[str, ...], colours: Sequence[Colour], ignored: int
) -> Listing | None:
    """Read the pictures that a table of VOC's names."""
    table = folder / "ImageSets" / "Segmentation" / f"{mode}.txt"
    if not table.is_file():
        return None
    names = table.read_text("utf-8", errors="replace").split()
    pictures, labels = folder / "JPEGImages", folder / "SegmentationClass"
    pairs = [LabelledPicture(pictures / f"{name}.jpg", labels / f"{name}.png") for name in names]
    return Listing(table, classes, colours, pairs, ignored)


def read_camvid(root: Path, mode: str) -> Listing | None:
    """Read CamVid as SegNet has it: pictures in train/, labels of one name in trainannot/."""
    folder, labels = root / mode, root / f"{mode}annot"
    if not (folder.is_dir() and labels.is_dir()):
        return None
    return Listing(folder, CAMVID_CLASSES, PALETTE, pair_files(folder, labels), NOT_LABELLED)


def read_folder(root: Path, mode: str) -> Listing | None:
    """Read root/train/images and root/train/labels, or pictures and labels side by side.

    `classes.txt` in root names the classes, one a line, with the red, green and blue of each where
    label images are colours. Without it, classes are called by their numbers.
    """
    folder = root / mode
    if not folder.is_dir():
        return None
    parted = (folder / "images").is_dir() and (folder / "labels").is_dir()
    pictures, labels = (folder / "images", folder / "labels") if parted else (folder, folder)
    pairs = pair_files(pictures, labels)
    if not any(pair.label is not None and pair.label.is_file() for pair in pairs):
        return None
    return Listing(folder, *read_classes(root / CLASSES_FILE), pairs)


def pair_files(pictures: Path, labels: Path) -> list[LabelledPicture]:
    """Return the pictures of a folder, each with the PNG of its name in another, or in the same.

    There, a PNG beside a picture of its name is that one's label; any other has none.
    """
    known = Image.registered_extensions()
    files = sorted(path for path in pictures.iterdir() if path.suffix.lower() in known)
    if pictures != labels:
        return [LabelledPicture(path, labels / f"{path.stem}.png") for path in files]
    pngs = {path.stem: path for path in files if path.suffix.lower() == ".png"}
    others = [path for path in files if path.suffix.lower() != ".png"]
    alone = pngs.keys() - {path.stem for path in others}
    pairs = [LabelledPicture(path, pngs.get(path.stem)) for path in others]
    return sorted(pairs + [LabelledPicture(pngs[stem], None) for stem in alone])


def read_classes(file: Path) -> tuple[tuple[str, ...] | None, list[Colour]]:
    """Return the names of a folder's classes, and their colours where it says them.

    Raises:
        LabError: the file cannot be read or understood.
    """
    if not file.is_file():
        return None, []
    try:
        lines = [line.split() for line in file.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"cannot read {file}: {error}") from error
    coloured = [len(words) > 3 and all(map(str.isdecimal, words[-3:])) for words in lines]
    if not lines or any(coloured) != all(coloured):
        raise LabError(f"{file}: give a class a line, its red, green and blue for all or for none")
    names = tuple(" ".join(words[:-3] if coloured[0] else words) for words in lines)
    if len(set(names)) < len(names) or len(names) > IGNORED:
        raise LabError(f"{file}: give each of at most {IGNORED} classes a name of its own")
    if not coloured[0]:
        return names, []
    return names, [tuple(map(int, words[-3:])) for words in lines]
