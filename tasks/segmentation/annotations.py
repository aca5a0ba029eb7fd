"""Where pictures and their label images lie: VOC's layout, CamVid's, and any folder's.

    listing = read_voc(Path("data"), "train")
    listing.classes, listing.pictures[0].path, listing.pictures[0].label

A reader takes the folder of a data set and one of `lab.image_folder.MODES`, and returns what is
labelled there, unread, or None where there is no such split.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lab.console import LabError
from lab.files import read_lines
from lab.folders import split_folder
from tasks.layouts import (
    PICTURE_ENDINGS,
    Pictures,
    by_stem,
    every_file,
    find_voc,
    listed_names,
    places,
)
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
CLASSES_FILE, ROBOFLOWS_FILE = "classes.txt", "_classes.csv"
# PNG comes first; JPEG is there to be refused: it blurs numbers.
LABEL_ENDINGS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".jpg", ".jpeg")
LABEL_MARKS = ("", "_mask", "_label", "_labels", "_gt", "_seg", "_L", "-mask")  # behind a name


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
    """Read what torchvision's VOCSegmentation downloads; of several years, the latest.

    CVAT exports this layout with classes of its own.
    """
    folder, table = find_voc(root, "Segmentation", mode) or (root, None)
    if table is not None and (folder / "labelmap.txt").is_file():
        return read_table(folder, table, *read_labelmap(folder / "labelmap.txt"), IGNORED)
    colours = (*VOC_COLORMAP, VOC_OPEN)
    return read_table(folder, table, VOC_CLASSES, colours, len(VOC_CLASSES))


def read_street(root: Path, mode: str) -> Listing | None:
    """Read drawn streets: VOC's layout a split, and CamVid's classes."""
    folder = root / mode
    table = folder / "ImageSets" / "Segmentation" / f"{mode}.txt"
    return read_table(folder, table, CAMVID_CLASSES, PALETTE, NOT_LABELLED)


def read_table(
    folder: Path,
    table: Path | None,
    classes: tuple[str, ...],
    colours: Sequence[Colour],
    ignored: int,
) -> Listing | None:
    """Read the pictures that a table of VOC's names."""
    if table is None or not table.is_file():
        return None
    pictures, labels = Pictures(folder / "JPEGImages"), folder / "SegmentationClass"
    names = listed_names(table)
    pairs = [LabelledPicture(pictures.find(name), labels / f"{name}.png") for name in names]
    return Listing(table, classes, colours, pairs, ignored)


def read_camvid(root: Path, mode: str) -> Listing | None:
    """Read CamVid as SegNet has it: pictures in train/, labels of one name in trainannot/."""
    folder = split_folder(root, mode)
    labels = folder and folder.with_name(f"{folder.name}annot")
    if labels is None or not labels.is_dir():
        return None
    return Listing(folder, CAMVID_CLASSES, PALETTE, pair_files(folder, labels), NOT_LABELLED)


def read_folder(root: Path, mode: str) -> Listing | None:
    """Read pictures and labels that lie as `tasks.layouts` says, as in train/images, train/labels.

    `classes.txt` in root names the classes, one a line, with the red, green and blue of each where
    label images are colours. Without it, classes are called by their numbers.
    """
    for pictures, labels in places(root, mode):
        pairs = pair_files(pictures, labels, pictures != root)
        if any(pair.label and pair.label.is_file() for pair in pairs):
            folder = split_folder(root, mode) or pictures
            return Listing(folder, *classes_of(root, folder), pairs)
    return None


def pair_files(pictures: Path, labels: Path, deep: bool = True) -> list[LabelledPicture]:
    """Return the pictures of a folder, each with the label of its name in another, or in the same.

    A label may be called `name_mask.png`, too; a picture is never its own.

    Args:
        deep: look into folders of the folders as well.
    """
    files = [by_stem(labels, [ending], deep) for ending in LABEL_ENDINGS]
    paths = every_file(pictures, PICTURE_ENDINGS, deep)
    stems = [path.relative_to(pictures).with_suffix("").as_posix() for path in paths]
    marked = [stem + mark for stem in stems for mark in LABEL_MARKS]
    if pictures != labels and not any(name in own for name in marked for own in files):
        files = [{stem.rpartition("/")[2]: path for stem, path in own.items()} for own in files]
    pairs = []
    for path, stem in zip(paths, stems, strict=True):
        named = [own.get(stem + mark) for mark in LABEL_MARKS for own in files]
        if pictures == labels:  # beside a picture, a PNG alone is a label by its name
            is_png = path.suffix.lower() == ".png"
            named[: len(files)] = [None if is_png else files[0].get(stem)]
        missing = labels / f"{stem}.png"
        own = next(filter(None, named), None if missing == path else missing)
        pairs.append(LabelledPicture(path, own))
    used = {pair.label for pair in pairs}
    return [pair for pair in pairs if pair.path not in used]


def classes_of(root: Path, folder: Path) -> tuple[tuple[str, ...] | None, Sequence[Colour]]:
    """Return names and colours of a folder's classes, from `classes.txt` or as Roboflow has them.

    Args:
        folder: of a split.
    """
    table = folder / ROBOFLOWS_FILE
    if (root / CLASSES_FILE).is_file() or not table.is_file():
        return read_classes(root / CLASSES_FILE)
    rows = [[word.strip() for word in line.split(",", 1)] for line in read_lines(table)[1:]]
    if [row[0] for row in rows] != [str(number) for number in range(len(rows))]:
        raise LabError(f"{table}: give each class a line, its number, from 0, and its name")
    return tuple(row[-1] for row in rows), []


def read_labelmap(file: Path) -> tuple[tuple[str, ...], list[Colour]]:
    """Return the classes of CVAT's `name:red,green,blue:parts:actions`, and their colours."""
    lines = [line.split(":") for line in read_lines(file) if line[0] != "#"]
    try:
        colours = [tuple(map(int, line[1].split(","))) for line in lines]
    except (IndexError, ValueError) as error:
        raise LabError(f"{file}: give each class a line, name:red,green,blue::") from error
    return tuple(line[0] for line in lines), colours


def read_classes(file: Path) -> tuple[tuple[str, ...] | None, list[Colour]]:
    """Return the names of a folder's classes, and their colours where it says them.

    Raises:
        LabError: the file cannot be read or understood.
    """
    if not file.is_file():
        return None, []
    lines = [line.split() for line in read_lines(file)]
    coloured = [len(words) > 3 and all(map(str.isdecimal, words[-3:])) for words in lines]
    if not lines or any(coloured) != all(coloured):
        raise LabError(f"{file}: give a class a line, its red, green and blue for all or for none")
    names = tuple(" ".join(words[:-3] if coloured[0] else words) for words in lines)
    if len(set(names)) < len(names) or len(names) > IGNORED:
        raise LabError(f"{file}: give each of at most {IGNORED} classes a name of its own")
    if not coloured[0]:
        return names, []
    return names, [tuple(map(int, words[-3:])) for words in lines]
