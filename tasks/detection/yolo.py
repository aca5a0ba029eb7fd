"""Boxes in a text file a picture, as YOLO has them: `class x y width height`, shares of its size.

    listing = read_yolo(Path("data/street_yolo"), "train")

Read as ultralytics writes them (data.yaml, images/, labels/; docs.ultralytics.com/datasets),
Roboflow, CVAT and darknet (obj.data, obj.names, lists of pictures) and LabelImg (classes.txt). A
line with more numbers is a polygon, of which the box around it is taken, or a box with key points.
A picture without a file shows nothing that is to be found.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lab.console import LabError
from lab.files import read_lines, read_text
from lab.folders import NOTES, PICTURES, SPLITS
from tasks.detection.annotations import Annotated, Box, Listing
from tasks.layouts import PICTURE_ENDINGS, Pictures, by_stem, has_splits, located, names_of, places

CLASS_FILES = ("classes.txt", "obj.names", "*.names")


class Described(NamedTuple):
    """What data.yaml, or darknet's files, say of a data set."""

    names: dict[int, str] | None  # of the classes; None where nothing says them
    entries: dict[str, list[str]]  # of each split its folders, or its lists of pictures
    base: Path  # that these are seen from
    posed: bool = False  # boxes have key points behind them


def read_yolo(root: Path, mode: str) -> Listing | None:
    """Read the split that data.yaml names, or else the one that lies where others have it."""
    said = describe(root)
    pairs_of = _described_pairs(said, mode) or _placed_pairs(root, mode)
    if pairs_of is None:
        return None
    source, pairs, orphans = pairs_of
    names, pictures, remarks = said.names, [], []
    for path, file in pairs:
        picture = Annotated(path, shares=True)
        if file is not None:
            picture.boxes = [
                read_line(line.split(), names or {}, said.posed) for line in read_lines(file)
            ]
        pictures.append(picture)
    if names is None:
        numbers = {int(b.name) for p in pictures for b in p.boxes if b.name.isdecimal()}
        names = {number: str(number) for number in range(max(numbers, default=-1) + 1)}
        remarks.append("neither data.yaml nor classes.txt names the classes: they have numbers")
    if orphans:
        remarks.append(f"{len(orphans):,} files of labels without a picture ({orphans[0].name})")
    return Listing(source, tuple(names.values()), pictures, 0, tuple(remarks))


def read_line(words: Sequence[str], names: dict[int, str], posed: bool) -> Box:
    """Return the box of a line, its corners in shares of the picture's size; NaN if it has none."""
    number, *values = words
    label = int(float(number)) if number.replace(".", "", 1).isdecimal() else number
    name = names.get(label, f"class {label}" if names else str(label))
    try:
        shares = list(map(float, values))
    except ValueError:
        shares = []
    if len(shares) >= 6 and len(shares) % 2 == 0 and not posed:
        xs, ys = shares[::2], shares[1::2]
        return Box(name, (min(xs), min(ys), max(xs), max(ys)))
    if len(shares) < 4:
        return Box.of(name, ())
    x, y, width, height = shares[:4]
    return Box(name, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))


# ---------------------------------------------------------------- what is said of a data set


def describe(root: Path) -> Described:
    """Read data.yaml, or obj.data and its like.

    Raises:
        LabError: it cannot be understood.
    """
    files = [path for pattern in ("*.yaml", "*.yml") for path in sorted(root.glob(pattern))]
    for file in files:
        try:
            content = yaml.safe_load(read_text(file))
        except yaml.YAMLError as error:
            text = " ".join(str(error).split())[:100]
            raise LabError(f"{file} is no YAML: {text}") from error
        if isinstance(content, dict) and {"names", *SPLITS} & content.keys():
            return _of_yaml(content, file)
    lists = {}
    for file in sorted(root.glob("*.data")):
        rows = (line.partition("=") for line in read_lines(file))
        lists |= {key.strip(): value.strip() for key, _, value in rows}
    entries = {
        mode: [value for key, value in lists.items() if key in SPLITS[mode]] for mode in SPLITS
    }
    if not any(entries.values()):
        lying = {mode: [root / f"{name}.txt" for name in SPLITS[mode]] for mode in SPLITS}
        entries = {m: [p.name for p in paths if p.is_file()] for m, paths in lying.items()}
    return Described(_names_in(root), entries, root)


def _of_yaml(content: dict[str, Any], file: Path) -> Described:
    names = content.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if names is None:
        names = _names_in(file.parent)
    elif not isinstance(names, dict) or not all(isinstance(number, int) for number in names):
        raise LabError(f"{file}: names is neither a list of classes nor a name for each number")
    names = names and {number: str(name) for number, name in sorted(names.items())}
    entries = {}
    for mode in SPLITS:
        given = next((content[name] for name in SPLITS[mode] if content.get(name)), [])
        entries[mode] = [str(entry) for entry in (given if isinstance(given, list) else [given])]
    path = content.get("path")
    base = file.parent / str(path) if path else file.parent
    return Described(names, entries, base if base.is_dir() else file.parent, "kpt_shape" in content)


def _names_in(root: Path) -> dict[int, str] | None:
    """Return the class a line of the file that lists them, wherever in the folder it lies."""
    for pattern in CLASS_FILES:
        for folder in (".", "*", "*/*"):
            for file in sorted(root.glob(f"{folder}/{pattern}")):
                return dict(enumerate(read_lines(file)))
    return None


# ---------------------------------------------------------------- pictures and their labels


Found = tuple[Path, list[tuple[Path, Path | None]], list[Path]]


def _described_pairs(said: Described, mode: str) -> Found | None:
    """Return the pictures of the folders and lists that are said to be a split's."""
    pictures: list[Path] = []
    source = None
    for entry in said.entries.get(mode, ()):
        place = _resolved(said.base, entry)
        if place is None:
            continue
        source = source or place
        if place.is_dir():
            pictures += by_stem(place, PICTURE_ENDINGS).values()
        else:
            lines = read_lines(place, "surrogateescape")
            pictures += [located(line, [said.base, place.parent]) for line in lines]
    if source is None or not pictures:
        return None
    return source, [(path, label_of(path)) for path in pictures], []


def _resolved(base: Path, entry: str) -> Path | None:
    """Return a folder or list that is named; Roboflow's lie beside data.yaml, not above."""
    plain = entry.replace("\\", "/")
    tried = [plain.removeprefix("../"), *names_of(plain)]
    return next((base / name for name in tried if (base / name).exists()), None)


def label_of(picture: Path) -> Path | None:
    """Return the file of a picture: beside it, or in labels/ where it lies in images/."""
    tried = [picture.with_suffix(".txt")]
    parts = picture.parts
    for k in reversed(range(len(parts) - 1)):
        if parts[k].lower() in PICTURES:
            tried += [
                Path(*parts[:k], name, *parts[k + 1 :]).with_suffix(".txt")
                for name in ("labels", *NOTES)
            ]
    return next((path for path in tried if path.is_file()), None)


def _placed_pairs(root: Path, mode: str) -> Found | None:
    """Return the pictures of a split, and their labels, from where other tools have them."""
    for folder, notes in places(root, mode):
        pictures = Pictures(folder, folder != root)
        files = by_stem(notes, (".txt",), notes != root)
        pairs = [(path, files.get(stem)) for stem, path in pictures.files.items()]
        if any(file is not None for _, file in pairs):
            orphans = _orphans(files, pictures.files)
            shared = notes.parent == root and has_splits(root)
            return notes, pairs, [] if shared else orphans
    return None


def _orphans(files: dict[str, Path], pictures: Iterable[str]) -> list[Path]:
    """Return the files of labels without a picture; lists, classes and notices are none."""
    labels = {stem: path for stem, path in files.items() if stem not in {*pictures}}
    return [path for path in labels.values() if _is_label(path)]


def _is_label(file: Path) -> bool:
    lines = read_lines(file, "replace")
    return bool(lines) and all(len(line.split()) >= 5 and line[0].isdigit() for line in lines)
