"""Boxes in a JSON file a split, as COCO has them (Lin et al. 2014, cocodataset.org/#format-data).

listing = read_coco(Path("data/street"), "train")
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab.console import LabError
from lab.files import read_text
from lab.folders import NOTES, PICTURES, SPLITS, folders_in, split_folder
from tasks.detection.annotations import Annotated, Box, Listing, flag_of, numbers, reading, size_of
from tasks.layouts import PICTURE_ENDINGS, every_file, kind_of, located, names_of
from world.faces import FACES

SIGNS = tuple(FACES)  # in the order of the benchmark's 43 classes
# Of several files of a split, those that hold its boxes, by how their names begin.
OWN_NAMES = ("annotations.json", "_annotations.coco.json", "instances")
MOST_FILES = 8  # more JSON files of one split belong to their pictures, one each


def read_coco(root: Path, mode: str) -> Listing | None:
    """Read any COCO file: of ours, COCO's own layout, Roboflow's, CVAT's, or one JSON alone."""
    file = find_file(root, mode)
    if file is None:
        return None
    with reading(file, "is no COCO file of boxes"):
        content = json.loads(read_text(file))
        names = names_by_id(content, file)
        folder = picture_folder(root, file, [entry["file_name"] for entry in content["images"]])
        pictures = {
            number_of(entry["id"]): Annotated(
                located(entry["file_name"], [folder]),
                size_of(entry.get("height"), entry.get("width")),
            )
            for entry in content["images"]
        }
        if len(pictures) < len(content["images"]):
            raise LabError(f"{file} gives several pictures one id")
        orphans = 0
        for entry in content["annotations"]:
            left, top, width, height = numbers(entry.get("bbox") or around(entry))
            number = number_of(entry.get("category_id"))
            box = Box.of(
                names.get(number, f"category {number}"),
                (left, top, left + width, top + height),
                flag_of(entry.get("iscrowd")),
            )
            picture = pictures.get(number_of(entry["image_id"]))
            if picture is None:
                orphans += 1
            else:
                picture.boxes.append(box)
    listed, remarks = list(pictures.values()), ()
    if folder == file.parent and folder != root:  # a folder of its own
        known = {picture.path for picture in listed}
        more = [path for path in every_file(folder, PICTURE_ENDINGS, False) if path not in known]
        if more:
            text = f"{len(more):,} pictures of the folder are not in it, and not used"
            remarks = (f"{text} ({more[0].name})",)
    return Listing(file, tuple(names.values()), listed, orphans, remarks)


def read_signs(root: Path, mode: str) -> Listing | None:
    """Read a COCO file for its traffic signs; what else has a box there is background."""
    listing = read_coco(root, mode)
    if listing is None:
        return None
    others = set(listing.classes) - set(SIGNS)
    if others == set(listing.classes):
        text = "has no class of traffic sign, of the benchmark's names"
        raise LabError(f"{listing.source} {text}; --dataset coco takes any classes")
    for picture in listing.pictures:
        picture.boxes = [box for box in picture.boxes if box.name not in others]
    return listing._replace(classes=SIGNS)


def names_by_id(content: dict[str, Any], file: Path) -> dict[Any, str]:
    """Return the names of the categories by their numbers, in the order of these.

    A category without a box that is the group of others is no class: Roboflow writes one, and calls
    it like its only class.
    """
    entries = content["categories"]
    used = {number_of(entry.get("category_id")) for entry in content["annotations"]}
    groups = {entry.get("supercategory") for entry in entries}
    names = {
        number_of(entry["id"]): str(entry["name"])
        for entry in entries
        if number_of(entry["id"]) in used or str(entry["name"]) not in groups or is_alone(entry)
    }
    if len(set(names.values())) < len(names):
        raise LabError(f"{file} gives several categories one name")
    return dict(sorted(names.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def is_alone(entry: dict[str, Any]) -> bool:
    """True of a category that is a group of itself, as some tools write each of theirs."""
    return entry.get("supercategory") == entry["name"]


def around(entry: dict[str, Any]) -> tuple[float, ...]:
    """Return the box, as COCO has it, around an entry's polygons; nothing where it has none."""
    polygons = entry.get("segmentation")
    points = [p for polygon in polygons for p in polygon] if isinstance(polygons, list) else []
    if not points:
        return ()
    xs, ys = points[::2], points[1::2]
    return min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)


def number_of(value: Any) -> Any:
    """Return an id as a whole number where it is one, however it was written."""
    text = str(value).strip()
    return int(text) if re.fullmatch(r"-?\d+", text) else text


# ---------------------------------------------------------------- which file, which folder


def find_file(root: Path, mode: str) -> Path | None:
    """Return the JSON file of a split; the only one there is, where none is of a split, is train's.

    Raises:
        LabError: there are several.
    """
    files = [path for path in _json_files(root) if path.name[0] != "."]
    named = {path: [_of_split(path.relative_to(root), split) for split in SPLITS] for path in files}
    own = [path for path, splits in named.items() if splits[[*SPLITS].index(mode)]]
    if not own and mode == "train":
        own = [path for path, splits in named.items() if not any(splits)]
    for beginning in OWN_NAMES:
        chosen = [path for path in own if path.name.lower().startswith(beginning)]
        if chosen:
            own = chosen
            break
    if len(own) == 1 and own[0].name.lower().startswith(OWN_NAMES):
        return own[0]  # a large file is not read twice
    if 1 < len(own) <= MOST_FILES:
        own = [path for path in own if kind_of(path) == "coco"]
    elif len(own) > MOST_FILES and kind_of(own[0]) != "coco":
        return None
    if len(own) > 1:
        several = ", ".join(str(path.relative_to(root)) for path in own[:3])
        raise LabError(f"{root} has several files of boxes of {mode}, {several}: leave one there")
    return own[0] if own and kind_of(own[0]) in ("coco", "") else None


def _json_files(root: Path) -> list[Path]:
    """Return the JSON files in a folder, its splits, and their folders of annotations."""
    folders = [root, *folders_in(root, NOTES), *folders_in(root, PICTURES)]
    splits = [path for path in (split_folder(root, mode) for mode in SPLITS) if path is not None]
    splits += [path for path in sorted(root.glob("*20[012][0-9]")) if path.is_dir()]
    folders += splits + [inner for path in splits for inner in folders_in(path, NOTES)]
    return [path for folder in dict.fromkeys(folders) for path in sorted(folder.glob("*.json"))]


def _of_split(path: Path, mode: str) -> bool:
    """True where a path names a split: annotations/instances_val2017.json."""
    words = re.split(r"[^a-z]+", path.with_suffix("").as_posix().lower())
    return any(name in words for name in SPLITS[mode])


def picture_folder(root: Path, file: Path, names: Sequence[str]) -> Path:
    """Return the folder that the file's names of pictures are seen from."""
    split = file.stem.rpartition("_")[2]  # train2017 of instances_train2017.json
    folders = [file.parent, *folders_in(file.parent, PICTURES), root / split]
    inside = folders_in(root, PICTURES)
    folders += [folder / split for folder in inside]
    for mode in SPLITS:
        if _of_split(file.relative_to(root), mode):
            own = [split_folder(folder, mode) for folder in (root, *inside)]
            folders += [inner for folder in own if folder for inner in folders_in(folder, PICTURES)]
            folders += [folder for folder in own if folder]
    folders += [*inside, root]
    tried = [(folder, name) for folder in folders for name in names[:20]]
    exact = (folder for folder, name in tried if (folder / name).is_file())
    near = (f for f, name in tried if any((f / other).is_file() for other in names_of(name)))
    return next(exact, None) or next(near, file.parent)
