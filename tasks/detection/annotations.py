"""What is annotated in a split, whoever wrote it, and formats of a file a picture or of a table.

    listing = read_voc(Path("data"), "train")
    listing.classes, listing.pictures[0].path, listing.pictures[0].boxes

A reader takes the folder of a data set and one of lab.image_folder.MODES, and returns what is
annotated there, unjudged, or None where there is no such split. A file that cannot be read at all
is a LabError; what is wrong with a single picture or box is kept, for `data` to name it.

Formats: VOC (Everingham et al. 2010), LabelMe (Wada 2016), the book's table of bananas. The others
have modules of their own: `coco`, `yolo`.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self
from xml.etree import ElementTree

from lab.console import LabError
from lab.files import read_text, reason
from lab.folders import PICTURES, folders_in
from tasks.layouts import (
    Pictures,
    by_stem,
    find_voc,
    has_splits,
    kind_of,
    listed_names,
    located,
    places,
)


class Box(NamedTuple):
    """Something that is to be found."""

    name: str
    corners: tuple[float, float, float, float]  # left, top, right, bottom in pixels; may be NaN
    ignored: bool = False  # nobody can be asked to find it
    swapped: bool = False  # its file has right for left, or bottom for top

    @classmethod
    def of(cls, name: str, values: Iterable[Any], ignored: bool = False, first: int = 0) -> Self:
        """Return the box of two opposite corners: x, y, x, y as they were written.

        Args:
            first: number of a picture's first pixel; from 1, the last one belongs to the box.
        """
        x1, y1, x2, y2 = numbers(values)
        left, right = sorted((x1, x2)) if x1 > x2 else (x1, x2)
        top, bottom = sorted((y1, y2)) if y1 > y2 else (y1, y2)
        corners = (left - first, top - first, right, bottom)
        return cls(name, corners, ignored, x1 > x2 or y1 > y2)


@dataclass
class Annotated:
    """A picture and its boxes.

    Attributes:
        size: (height, width) that the annotation says; None if it does not.
        problem: why it cannot be used; empty where it can.
        shares: corners are shares of the picture's width and height, not pixels.
    """

    path: Path
    size: tuple[int, int] | None = None
    boxes: list[Box] = field(default_factory=list)
    problem: str = ""
    shares: bool = False


class Listing(NamedTuple):
    """What is annotated in one split."""

    source: Path  # the file or folder of the annotations
    classes: tuple[str, ...]
    pictures: list[Annotated]
    orphans: int = 0  # boxes of pictures that are not listed
    remarks: tuple[str, ...] = ()  # what else is to be said of it


@contextmanager
def reading(file: Path, otherwise: str) -> Iterator[None]:
    """Turn what goes wrong with a file's content into a LabError: it is `otherwise`."""
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise LabError(f"{file} {otherwise} ({error!r})") from error


# ---------------------------------------------------------------- a file a picture


Read = Callable[[Path, Path], Annotated]  # the file of a picture, and that picture


def read_beside(
    root: Path, mode: str, what: str, kinds: Collection[str], read: Read
) -> Listing | None:
    """Read annotations of which every picture has a file of its own, of its name.

    Args:
        what: the files are, XML or JSON, as their names end.
        kinds: of `kind_of`, one of which the first files are.
    """
    for folder, notes in places(root, mode):
        files = by_stem(notes, (f".{what.lower()}",), notes != root)
        if not any(kind_of(file) in kinds for file in [*files.values()][:5]):
            continue
        pictures = Pictures(folder, folder != root)
        listed = {stem: pictures.find(stem) for stem in files}
        if notes.parent == root and has_splits(root):  # of all splits: those of this one alone
            listed = {stem: path for stem, path in listed.items() if path.is_file()}
            if not listed:
                continue
        annotated = [read(files[stem], path) for stem, path in listed.items()]
        known = {picture.path for picture in annotated}
        annotated += [
            Annotated(path, problem=f"no {what} beside it")
            for path in pictures.files.values()
            if path not in known
        ]
        remarks = ()
        if doubles := pictures.doubles:
            text = f"{len(doubles):,} pictures of a name that another has, not used"
            remarks = (f"{text} ({doubles[0].name})",)
        return Listing(notes, names_in(annotated), annotated, remarks=remarks)
    return None


def names_in(pictures: Iterable[Annotated]) -> tuple[str, ...]:
    """Return the names of all boxes, sorted."""
    return tuple(sorted({box.name for picture in pictures for box in picture.boxes} - {""}))


# ---------------------------------------------------------------- VOC


def read_voc(root: Path, mode: str) -> Listing | None:
    """Read what torchvision's VOCDetection downloads, or pictures with VOC's XML.

    The latter lie as `tasks.layouts` says: LabelImg, Roboflow, CVAT and many on Kaggle write them.
    """
    devkit = find_voc(root, "Main", mode)
    if devkit is None:
        return read_beside(root, mode, "XML", ("voc", ""), read_xml)
    folder, table = devkit
    if table is None:
        return None
    inside = folders_in(folder, PICTURES)
    pictures = Pictures(inside[0] if inside else folder / "JPEGImages")
    listed = [
        read_xml(folder / "Annotations" / f"{name}.xml", pictures.find(name))
        for name in listed_names(table)
    ]
    return Listing(table, names_in(listed), listed)


def read_xml(file: Path, path: Path) -> Annotated:
    """Read one file of VOC's, of a picture."""
    picture = Annotated(path)
    try:
        tree = parse_xml(file.read_bytes())
    except OSError as error:
        picture.problem = f"{file.name}: {reason(error)}"
        return picture
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # an unknown encoding
        picture.problem = f"{file.name} is no XML: {error}"
        return picture
    if not path.is_file() and (name := (tree.findtext("filename") or "").strip()):
        named = located(name, [path.parent])
        picture.path = named if named.is_file() else path
    picture.size = size_of(tree.findtext("size/height"), tree.findtext("size/width"))
    for entry in tree.iter("object"):
        texts = [entry.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]
        name = (entry.findtext("name") or "").strip()
        # Pixels are counted from 1, and the last one belongs to the box.
        picture.boxes.append(Box.of(name, texts, flag_of(entry.findtext("difficult")), first=1))
    return picture


def parse_xml(body: bytes) -> ElementTree.Element:
    """Return the root of an XML file, in any encoding that Python knows; the parser knows few."""
    try:
        return ElementTree.fromstring(body)
    except ValueError:
        encoding = re.search(rb"""encoding=["']([\w.-]+)""", body[:200])
        if encoding is None:
            raise
        return ElementTree.fromstring(body.decode(encoding[1].decode()).partition("?>")[2])


# ---------------------------------------------------------------- LabelMe


def read_labelme(root: Path, mode: str) -> Listing | None:
    """Read the JSON that LabelMe writes beside pictures; of a polygon, the box around it."""
    return read_beside(root, mode, "JSON", ("labelme",), read_shapes)


def read_shapes(file: Path, path: Path) -> Annotated:
    """Read one file of LabelMe's, of a picture."""
    picture = Annotated(path)
    try:
        content = json.loads(read_text(file))
        name = str(content.get("imagePath") or "")
        picture.size = size_of(content.get("imageHeight"), content.get("imageWidth"))
        picture.boxes = [box_of_shape(shape) for shape in content["shapes"]]
    except (LabError, ValueError, KeyError, TypeError, AttributeError):
        picture.problem = f"{file.name} is no JSON of LabelMe's"
        return picture
    if not path.is_file() and name:
        named = located(name, [path.parent, file.parent])
        picture.path = named if named.is_file() else path
    return picture


def box_of_shape(shape: dict[str, Any]) -> Box:
    """Return the box around one of LabelMe's shapes."""
    points = [tuple(map(float, point)) for point in shape.get("points", ())]
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    if shape.get("shape_type") == "circle" and len(points) == 2:  # its middle, and one point of it
        radius = math.dist(*points)
        xs, ys = [xs[0] - radius, xs[0] + radius], [ys[0] - radius, ys[0] + radius]
    corners = (min(xs), min(ys), max(xs), max(ys)) if points else ()
    return Box.of(str(shape.get("label", "")).strip(), corners)


# ---------------------------------------------------------------- the book's bananas


def read_bananas(root: Path, mode: str) -> Listing | None:
    """Read the table of Dive into Deep Learning (section 14.6): a banana a picture."""
    table = root / f"bananas_{mode}" / "label.csv"
    if not table.is_file():
        return None
    pictures: dict[str, Annotated] = {}
    with reading(table, "has not the columns img_name, label, xmin, ymin, xmax, ymax"):
        for row in csv.DictReader(io.StringIO(read_text(table))):
            name = row["img_name"]
            label = row["label"].strip()
            path = located(name, [table.parent / "images"])
            picture = pictures.setdefault(name, Annotated(path))
            corners = [row[side] for side in ("xmin", "ymin", "xmax", "ymax")]
            picture.boxes.append(Box.of("banana" if label == "0" else f"label {label}", corners))
    return Listing(table, ("banana",), list(pictures.values()))


# ---------------------------------------------------------------- values as others wrote them


def numbers(values: Any) -> tuple[float, float, float, float]:
    """Return four numbers; NaN for what is none."""
    try:
        a, b, c, d = map(float, values)
    except (TypeError, ValueError):
        return (math.nan,) * 4
    return a, b, c, d


def size_of(height: Any, width: Any) -> tuple[int, int] | None:
    """Return the size that an annotation says; some tools write nothing or 0."""
    try:
        size = int(height), int(width)
    except (TypeError, ValueError):
        return None
    return size if min(size) > 0 else None


def flag_of(value: Any) -> bool:
    """Return what was meant by 1, "1", true or "True", and by 0, "0", "" or nothing."""
    return str(value or "").strip().lower() not in ("", "0", "0.0", "false", "no", "none")
