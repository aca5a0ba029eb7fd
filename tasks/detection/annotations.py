"""Who drew boxes, and how they wrote them down: COCO, Pascal VOC, the book's table of bananas.

    listing = read_coco(Path("data/street"), "train")
    listing.classes, listing.pictures[0].path, listing.pictures[0].boxes

A reader takes the folder of a data set and one of lab.image_folder.MODES, and returns what is
annotated there, unjudged, or None where there is no such split. A file that cannot be read at all
is a LabError; what is wrong with a single picture or box is kept, for `data` to name it.

Formats: COCO (Lin et al. 2014, cocodataset.org/#format-data), VOC (Everingham et al. 2010).
"""

import csv
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from lab.console import LabError
from lab.files import attempt, reason
from tasks.annotated import find_voc
from world.faces import FACES

ALIASES = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}  # names of the splits
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp")
SIGNS = tuple(FACES)  # in the order of the benchmark's 43 classes


class Box(NamedTuple):
    """Something that is to be found."""

    name: str
    corners: tuple[float, float, float, float]  # left, top, right, bottom in pixels; may be NaN
    ignored: bool = False  # nobody can be asked to find it


@dataclass
class Annotated:
    """A picture and its boxes.

    Attributes:
        size: (height, width) that the annotation says; None if it does not.
        problem: why it cannot be used; empty where it can.
    """

    path: Path
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)
    problem: str = ""


class Listing(NamedTuple):
    """What is annotated in one split."""

    source: Path  # the file or folder of the annotations
    classes: tuple[str, ...]
    pictures: list[Annotated]
    orphans: int = 0  # boxes of pictures that are not listed


@contextmanager
def reading(file: Path, otherwise: str) -> Iterator[None]:
    """Turn what goes wrong with a file into a LabError: it cannot be read, or `otherwise`."""
    try:
        with attempt(f"read {file}"):
            yield
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise LabError(f"{file} {otherwise} ({error!r})") from error


# ---------------------------------------------------------------- COCO


def read_coco(root: Path, mode: str) -> Listing | None:
    """Read any COCO file: of ours, COCO's own layout, Roboflow's, CVAT's, or one JSON alone."""
    file = _coco_file(root, mode)
    if file is None:
        return None
    with reading(file, "is no COCO file of boxes"):
        content = json.loads(file.read_text("utf-8"))
        names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
        folder = _picture_folder(root, file, [entry["file_name"] for entry in content["images"]])
        pictures = {
            entry["id"]: Annotated(
                folder / entry["file_name"], _size(entry.get("height"), entry.get("width"))
            )
            for entry in content["images"]
        }
        if len(pictures) < len(content["images"]):
            raise LabError(f"{file} gives several pictures one id")
        orphans = 0
        for entry in content["annotations"]:
            left, top, width, height = _numbers(entry.get("bbox"))
            number = entry.get("category_id")
            box = Box(
                names.get(number, f"category {number}"),
                (left, top, left + width, top + height),
                bool(entry.get("iscrowd", 0)),
            )
            picture = pictures.get(entry["image_id"])
            if picture is None:
                orphans += 1
            else:
                picture.boxes.append(box)
    classes = [names[number] for number in sorted(names)]
    if len(set(classes)) < len(classes):
        raise LabError(f"{file} gives several categories one name")
    return Listing(file, tuple(classes), list(pictures.values()), orphans)


def read_signs(root: Path, mode: str) -> Listing | None:
    """Read a COCO file for its traffic signs; what else has a box there is background."""
    listing = read_coco(root, mode)
    if listing is None:
        return None
    others = set(listing.classes) - set(SIGNS)
    for picture in listing.pictures:
        picture.boxes = [box for box in picture.boxes if box.name not in others]
    return listing._replace(classes=SIGNS)


def _coco_file(root: Path, mode: str) -> Path | None:
    """Return the JSON file of a split."""
    patterns = [
        pattern
        for name in ALIASES[mode]
        for pattern in (
            f"{name}/annotations.json", f"{name}/_annotations.coco.json",
            f"annotations/instances_{name}*.json", f"{name}*/*.json", f"{name}*.json",
        )
    ]  # fmt: skip
    if mode == "train":
        patterns += ["annotations/*.json", "*.json"]
    for pattern in patterns:
        files = sorted(root.glob(pattern))
        if len(files) > 1:
            raise LabError(f"{root} has several files {pattern}: leave one of them there")
        if files:
            return files[0]
    return None


def _picture_folder(root: Path, file: Path, names: list[str]) -> Path:
    """Return the folder that the file's names of pictures are seen from."""
    split = file.stem.rpartition("_")[2]  # train2017 of instances_train2017.json
    folders = [file.parent, file.parent / "images", root / split, root / "images" / split]
    folders += [root / "images", root]
    right = (folder for folder in folders for name in names[:20] if (folder / name).is_file())
    return next(right, file.parent)


# ---------------------------------------------------------------- VOC


def read_voc(root: Path, mode: str) -> Listing | None:
    """Read what torchvision's VOCDetection downloads, or pictures with VOC's XML beside them.

    The latter lie in root/train, root/val and root/test, or all in root.
    """
    devkit = find_voc(root, "Main")
    if devkit is not None:
        table = devkit / "ImageSets" / "Main" / f"{mode}.txt"
        if not table.is_file():
            return None
        names = table.read_text("utf-8", errors="replace").split()
        files = [devkit / "Annotations" / f"{name}.xml" for name in names]
        listed = [_read_xml(file, devkit / "JPEGImages") for file in files]
        return Listing(table, _names(listed), listed)
    folders = [root / name for name in ALIASES[mode] if (root / name).is_dir()]
    if not folders and mode == "train":
        folders = [root]
    for folder in folders:
        if files := sorted(folder.glob("*.xml")):
            listed = [_read_xml(file, folder) for file in files]
            annotated = {picture.path.stem for picture in listed}
            listed += [
                Annotated(path, problem="no XML beside it")
                for path in sorted(folder.iterdir())
                if path.suffix.lower() in PICTURE_ENDINGS and path.stem not in annotated
            ]
            return Listing(folder, _names(listed), listed)
    return None


def _read_xml(file: Path, folder: Path) -> Annotated:
    """Read one file of VOC's; its picture lies in `folder`."""
    named = (folder / f"{file.stem}{ending}" for e in PICTURE_ENDINGS for ending in (e, e.upper()))
    path = next((path for path in named if path.is_file()), folder / f"{file.stem}.jpg")
    picture = Annotated(path)
    try:
        tree = ElementTree.parse(file).getroot()
    except OSError as error:
        picture.problem = f"{file.name}: {reason(error)}"
        return picture
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: an unknown encoding
        picture.problem = f"{file.name} is no XML: {error}"
        return picture
    picture.size = _size(tree.findtext("size/height"), tree.findtext("size/width"))
    for entry in tree.iter("object"):
        texts = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        left, top, right, bottom = _numbers(texts)
        # Pixels are counted from 1, and the last one belongs to the box.
        corners = (left - 1, top - 1, right, bottom)
        name = (entry.findtext("name") or "").strip()
        picture.boxes.append(Box(name, corners, (entry.findtext("difficult") or "").strip() == "1"))
    return picture


def _names(pictures: Iterable[Annotated]) -> tuple[str, ...]:
    return tuple(sorted({box.name for picture in pictures for box in picture.boxes} - {""}))


# ---------------------------------------------------------------- the book's bananas


def read_bananas(root: Path, mode: str) -> Listing | None:
    """Read the table of Dive into Deep Learning (section 14.6): a banana a picture."""
    table = root / f"bananas_{mode}" / "label.csv"
    if not table.is_file():
        return None
    pictures: dict[str, Annotated] = {}
    with (
        reading(table, "has not the columns img_name, label, xmin, ymin, xmax, ymax"),
        table.open(newline="", encoding="utf-8-sig") as file,
    ):
        for row in csv.DictReader(file):
            name = row["img_name"]
            label = row["label"].strip()
            picture = pictures.setdefault(name, Annotated(table.parent / "images" / name))
            corners = _numbers([row[side] for side in ("xmin", "ymin", "xmax", "ymax")])
            picture.boxes.append(Box("banana" if label == "0" else f"label {label}", corners))
    return Listing(table, ("banana",), list(pictures.values()))


# ---------------------------------------------------------------- values as others wrote them


def _numbers(values: Any) -> tuple[float, float, float, float]:
    """Return four numbers; NaN for what is none."""
    try:
        a, b, c, d = map(float, values)
    except (TypeError, ValueError):
        return (math.nan,) * 4
    return a, b, c, d


def _size(height: Any, width: Any) -> tuple[int, int] | None:
    """Return the size that an annotation says; some tools write nothing or 0."""
    try:
        size = int(height), int(width)
    except (TypeError, ValueError):
        return None
    return size if min(size) > 0 else None
