"""Where pictures and what is known of them lie, as many tools lay them out.

    for pictures, notes in places(root, "train"): ...     # folders, the likeliest first
    by_stem(pictures, PICTURE_ENDINGS)                     # {"street/0001": Path(".../0001.jpg")}
    located("C:\\photos\\my%20dog.jpg", [folder])          # folder / "my dog.jpg"

| layout | of |
|---|---|
| `train/` with pictures and notes, side by side | Roboflow, LabelImg, LabelMe |
| `train/images/`, `train/labels/` | Roboflow, Kaggle |
| `images/train/`, `labels/train/` | ultralytics, COCO |
| `train/`, and `annotations/train/`, one `annotations/` for all, or `train_masks/` | Kaggle |
| `images/`, `annotations/`, or both side by side; no split | LabelImg, Kaggle |

What a folder or a split may be called, `lab.folders` lists.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lab.console import LabError
from lab.files import read_lines, read_text
from lab.folders import NOTES, PICTURES, SPLITS, folders_in, split_folder

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".webp", ".tif", ".tiff", ".gif")
NO_SPLIT = ("trainval", "default")  # a list of all there is; the latter is CVAT's


def places(root: Path, mode: str) -> Iterator[tuple[Path, Path]]:
    """Yield folders of a split's pictures and of its notes, which can be the same.

    A folder without any split is all train.
    """
    split, notes = split_folder(root, mode), folders_in(root, NOTES)
    if split is not None:
        yield from _sides(split)
    for folder in folders_in(root, PICTURES):
        if (own := split_folder(folder, mode)) is not None:
            yield from ((own, split_folder(labels, mode) or labels) for labels in notes)
            yield own, own
    if split is not None:
        yield from ((split, split_folder(labels, mode) or labels) for labels in notes)
        beside = [f"{split.name.lower()}{mark}{name}" for mark in ("_", "-") for name in NOTES]
        yield from ((split, labels) for labels in folders_in(root, beside))
    if mode == "train" and not has_splits(root):
        yield from _sides(root)


def has_splits(root: Path) -> bool:
    """True where a folder, or one of its folders of pictures, holds that of some split."""
    folders = (root, *folders_in(root, PICTURES))
    return any(split_folder(folder, mode) for folder in folders for mode in SPLITS)


def _sides(folder: Path) -> Iterator[tuple[Path, Path]]:
    for pictures in (*folders_in(folder, PICTURES), folder):
        yield from ((pictures, notes) for notes in folders_in(folder, NOTES))
        yield pictures, pictures


def every_file(folder: Path, endings: Sequence[str], deep: bool = True) -> list[Path]:
    """Return the files below a folder, sorted; hidden ones are none, nor a Mac's `._name`.

    Args:
        deep: in folders of the folder as well.
    """
    if not folder.is_dir():
        return []
    paths = folder.rglob("*") if deep else folder.iterdir()
    chosen = (path for path in paths if path.suffix.lower() in endings and path.is_file())
    return sorted(path for path in chosen if not _is_hidden(path.relative_to(folder)))


def _is_hidden(path: Path) -> bool:
    return any(name[0] == "." for name in path.parts)


def by_stem(folder: Path, endings: Sequence[str], deep: bool = True) -> dict[str, Path]:
    """Return files as `every_file` does, by their path from the folder without ending."""
    files = {}
    for path in every_file(folder, endings, deep):
        files.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return files


class Pictures:
    """The pictures below a folder, by their path from it without ending.

    Attributes:
        doubles: those whose name another has with another ending; they are not used.
    """

    def __init__(self, folder: Path, deep: bool = True):
        self.folder, self.files = folder, by_stem(folder, PICTURE_ENDINGS, deep)
        used = {*self.files.values()}
        self.doubles = [p for p in every_file(folder, PICTURE_ENDINGS, deep) if p not in used]
        by_name = {stem.rpartition("/")[2]: path for stem, path in self.files.items()}
        self.by_name = by_name if len(by_name) == len(self.files) else {}

    def find(self, stem: str) -> Path:
        """Return the picture of such a path, or else of such a name; where it should be if none."""
        path = self.files.get(stem) or self.by_name.get(stem.rpartition("/")[2])
        return path or self.folder / f"{stem}.jpg"


def names_of(name: str) -> list[str]:
    """Return what a file may be called that somebody else's tool calls by a name.

    As it is written; with the other system's separators; as an address quotes it; without some of
    the folders that it had on another machine.
    """
    plain, names = name.replace("\\", "/"), [name]
    for text in (plain, unquote(plain)):
        words = text.split("/")
        names += ["/".join(words[k:]) for k in range(len(words))]
    return [other for other in dict.fromkeys(names) if other]


def located(name: str, folders: Sequence[Path]) -> Path:
    """Return the file of a name in one of some folders; where it should be if it is in none."""
    tried = (folder / other for other in names_of(name) for folder in folders)
    return next((path for path in tried if os.path.isfile(path)), folders[0] / name)


def listed_names(table: Path) -> list[str]:
    """Return the names of a list, a line each, without the ending that they may have there."""
    names = []
    for line in read_lines(table, "surrogateescape"):
        name = line.replace("\\", "/").removeprefix("./")
        stem, ending = os.path.splitext(name)
        names.append(stem if ending.lower() in PICTURE_ENDINGS else name)
    return names


def only_folder(root: Path) -> Path:
    """Return the folder inside a folder, and so on, as archives unpack; itself where more is there.

    As long as nothing else lies beside it that is not hidden.
    """
    inside = [path for path in root.iterdir() if path.name[0] != "." and path.name != "__MACOSX"]
    return only_folder(inside[0]) if len(inside) == 1 and inside[0].is_dir() else root


# ---------------------------------------------------------------- VOC's lists


def find_voc(root: Path, kind: str, mode: str) -> tuple[Path, Path | None] | None:
    """Return the folder in VOC's layout, of several years the latest, and a split's list there.

    The list is None where there is none of that split; all of it None where nothing lies in VOC's
    layout. Kaggle's copies have the splits of one year in folders of their own.

    Args:
        kind: of the lists, Main or Segmentation.
    """
    patterns = ("VOC2*", "*VOC*/VOC2*", "*/VOCdevkit/VOC2*", "*VOC*/*VOC*/VOC2*")
    inside = {place for pattern in patterns for place in root.glob(pattern)}
    years = [root, *sorted(inside, key=lambda place: (place.name[:7], place))]
    tables = {
        place: {table.stem.lower(): table for table in (place / "ImageSets" / kind).glob("*.txt")}
        for place in years
        if (place / "ImageSets" / kind).is_dir()
    }
    if not tables:
        return None
    latest = [*tables][-1]
    for place in (latest, *tables):
        if place.name[:7] == latest.name[:7] and (table := _list_of(tables[place], mode)):
            return place, table
    return latest, None


def _list_of(tables: dict[str, Path], mode: str) -> Path | None:
    """Return the list of a split; of train, where no list is of a split, the list of all."""
    named = {split: [n for n in names if n in tables] for split, names in SPLITS.items()}
    if named[mode]:
        return tables[named[mode][0]]
    if mode != "train":
        return None
    rest = [name for name in NO_SPLIT if name in tables]
    if not rest and not any(named.values()) and len(tables) == 1:
        rest = [*tables]
    return tables[rest[0]] if rest else None


# ---------------------------------------------------------------- what else a folder holds


def foreign(root: Path) -> str:
    """Return the format of annotations that no reader here knows, and what to do; or nothing."""
    for file in _samples(root):
        kind = kind_of(file)
        if kind in FOREIGN:
            return f"; {file} is {FOREIGN[kind]}"
    return ""


FOREIGN = {
    "via": "VIA's own project: export it as COCO (Annotation, Export Annotations)",
    "labelstudio": "Label Studio's own JSON: export it as COCO or YOLO",
    "createml": "Create ML's JSON: export it as COCO or Pascal VOC",
    "cvat": "CVAT's own XML: export the task as COCO 1.0 or Pascal VOC 1.1",
    "csv": "a table of boxes: export it as COCO, Pascal VOC or YOLO",
    "labelme": "LabelMe's JSON: --task detection takes its boxes; for labels, export it as PNG",
    "coco": "COCO's JSON: --task detection takes its boxes; for labels, export it as PNG",
    "tfrecord": "TensorFlow's records: export it as COCO, Pascal VOC or YOLO",
}


def kind_of(file: Path) -> str:
    """Return which tool's annotations a file holds: a key of FOREIGN, voc, or nothing."""
    ending = file.suffix.lower()
    try:
        if ending in (".record", ".tfrecord"):
            return "tfrecord"
        if ending == ".xml":
            text = read_text(file)
            return "cvat" if "<annotations>" in text else "voc" * ("<annotation" in text)
        if ending == ".csv":
            columns = next(csv.reader(io.StringIO(read_text(file))), [])
            return "csv" if any("xmin" in name.lower() for name in columns) else ""
        return kind_of_json(json.loads(read_text(file)))
    except (LabError, ValueError, csv.Error):
        return ""


def kind_of_json(content: Any) -> str:
    """Return which tool writes such JSON, as `kind_of`."""
    first = content
    if isinstance(content, list):
        first = content[0] if content else None
        keys = set(first) if isinstance(first, dict) else set()
        if {"image", "annotations"} <= keys:
            return "createml"
        return "labelstudio" if {"data", "annotations"} <= keys else ""
    if not isinstance(content, dict):
        return ""
    if {"images", "annotations", "categories"} <= content.keys():
        return "coco"
    if "shapes" in content:
        return "labelme"
    first = next(iter(content.values()), None)
    of_pictures = isinstance(first, dict) and {"filename", "regions"} <= first.keys()
    return "via" if of_pictures or "_via_img_metadata" in content else ""


def _samples(root: Path) -> Iterator[Path]:
    """Yield of each folder, two deep, the first file of each kind that may hold annotations."""
    for folder in (root, *(p for pattern in ("*", "*/*") for p in sorted(root.glob(pattern))[:50])):
        seen = set()
        if folder.is_dir():
            for path in sorted(folder.iterdir()):
                ending = path.suffix.lower()
                wanted = ending in (".json", ".xml", ".csv", ".record", ".tfrecord")
                if wanted and ending not in seen and path.is_file():
                    seen.add(ending)
                    yield path
