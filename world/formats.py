"""Drawn streets as other tools have pictures with boxes: COCO's files, Pascal VOC's, YOLO's.

    write_yolo(drawn, target)    # `drawn` as world.street draws it: train/ val/ test/

All 43 signs and the other objects keep their classes. What is too small or too hidden to be asked
for is `iscrowd` in COCO's files and `difficult` in VOC's; YOLO's cannot say so, and it is left out.
"""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from world.street import CATEGORIES


class Format(NamedTuple):
    """A format that `python datasets.py street --format` writes."""

    write: Callable[[Path, Path], None]  # (the drawn folder, the one to make)
    holds: str  # of a split, said in the end


def splits_of(drawn: Path) -> list[Path]:
    """Return the folders of the splits there are."""
    return [drawn / name for name in ("train", "val", "test") if (drawn / name).is_dir()]


def pictures_of(split: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield COCO's entries of each picture of a split and of its boxes."""
    content = json.loads((split / "annotations.json").read_bytes())
    boxes: dict[int, list[dict[str, Any]]] = {}
    for entry in content["annotations"]:
        boxes.setdefault(entry["image_id"], []).append(entry)
    for image in content["images"]:
        yield image, boxes.get(image["id"], [])


def write_coco(drawn: Path, target: Path) -> None:
    """Write train/NNNNN.jpg and annotations/instances_train.json, and so on; sentences as well."""
    notes = target / "annotations"
    notes.mkdir(parents=True)
    for split in splits_of(drawn):
        (split / "JPEGImages").rename(target / split.name)
        for name, file in (("annotations", "instances"), ("captions", "captions")):
            content = json.loads((split / f"{name}.json").read_bytes())
            for image in content["images"]:
                image["file_name"] = image["file_name"].rpartition("/")[2]
            text = json.dumps(content)
            (notes / f"{file}_{split.name}.json").write_text(text, "utf-8")


def write_voc(drawn: Path, target: Path) -> None:
    """Write VOCdevkit/VOC2012, which torchvision reads; the splits are lists in ImageSets/Main."""
    kit = target / "VOCdevkit" / "VOC2012"
    pictures, notes, lists = kit / "JPEGImages", kit / "Annotations", kit / "ImageSets" / "Main"
    for folder in (pictures, notes, lists):
        folder.mkdir(parents=True)
    for split in splits_of(drawn):
        names = []
        for image, boxes in pictures_of(split):
            file = split / image["file_name"]
            names.append(f"{split.name}_{file.stem}")
            file.rename(pictures / f"{names[-1]}.jpg")
            tree = ElementTree.ElementTree(as_xml(f"{names[-1]}.jpg", image, boxes))
            ElementTree.indent(tree)
            tree.write(notes / f"{names[-1]}.xml")
        (lists / f"{split.name}.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")


def as_xml(name: str, image: dict[str, Any], boxes: list[dict[str, Any]]) -> ElementTree.Element:
    """Return VOC's description of a picture; pixels count from 1, the last one is in the box."""
    root = ElementTree.Element("annotation")
    add(root, "filename", name)
    size = ElementTree.SubElement(root, "size")
    for side, value in (("width", image["width"]), ("height", image["height"]), ("depth", 3)):
        add(size, side, value)
    for entry in boxes:
        left, top, width, height = entry["bbox"]
        thing = ElementTree.SubElement(root, "object")
        add(thing, "name", CATEGORIES[entry["category_id"] - 1]["name"])
        add(thing, "difficult", entry["iscrowd"])
        corners = ElementTree.SubElement(thing, "bndbox")
        add(corners, "xmin", left + 1)
        add(corners, "ymin", top + 1)
        add(corners, "xmax", left + width)
        add(corners, "ymax", top + height)
    return root


def add(element: ElementTree.Element, tag: str, value: object) -> None:
    ElementTree.SubElement(element, tag).text = str(value)


def write_yolo(drawn: Path, target: Path) -> None:
    """Write images/train/, labels/train/ and so on, and data.yaml, as ultralytics has them."""
    lines = []
    for split in splits_of(drawn):
        labels = target / "labels" / split.name
        labels.mkdir(parents=True)
        for image, boxes in pictures_of(split):
            rows = [as_row(image, entry) for entry in boxes if not entry["iscrowd"]]
            name = os.path.splitext(image["file_name"].rpartition("/")[2])[0]
            (labels / f"{name}.txt").write_text("".join(rows), "utf-8")
        (target / "images").mkdir(exist_ok=True)
        (split / "JPEGImages").rename(target / "images" / split.name)
        lines.append(f"{split.name}: images/{split.name}\n")
    lines += ["names:\n", *(f"  {entry['id'] - 1}: {entry['name']}\n" for entry in CATEGORIES)]
    (target / "data.yaml").write_text("".join(lines), "utf-8")


def as_row(image: dict[str, Any], entry: dict[str, Any]) -> str:
    """Return YOLO's line of a box: its class, its middle and its sides, shares of the picture's."""
    left, top, width, height = entry["bbox"]
    shares = (
        (left + width / 2) / image["width"],
        (top + height / 2) / image["height"],
        width / image["width"],
        height / image["height"],
    )
    return " ".join([str(entry["category_id"] - 1), *(f"{share:.6f}" for share in shares)]) + "\n"


FORMATS = {
    "coco": Format(write_coco, "pictures, and their boxes in annotations/"),
    "voc": Format(write_voc, "pictures in VOCdevkit/VOC2012, and their boxes"),
    "yolo": Format(write_yolo, "pictures in images/, and their boxes in labels/"),
}
