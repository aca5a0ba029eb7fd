"""The German Traffic Sign Detection Benchmark (Houben et al. 2013): photographs, COCO's files.

python datasets.py gtsdb --data_root FOLDER            # street photographs: 400 train, 200 test
python datasets.py gtsdb --data_root FOLDER --crops    # the signs in them, for a classifier
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lab.console import LabError, say
from lab.files import attempt, read_lines
from lab.folders import printable
from lab.images import cut_out, read_image
from published.gtsrb import CLASSES
from published.layout import ENDINGS, lay_out, link_or_copy, say_counts
from world.signs import folders_of

COUNT, TRAIN = 600, 400  # photographs of the benchmark's training part; those to train on
TESTS = 300  # those of its test part, numbered after the others
LEAST_SIDE = 20  # pixels of a sign's longer side, from which it is cut out


class Sign(NamedTuple):
    """A line of gt.txt."""

    label: int
    corners: list[float]  # left, top, right, bottom


def prepare_gtsdb(root: Path, source: Path, all_test: bool = False) -> Path:
    """Lay the German Traffic Sign Detection Benchmark out as photographs with COCO's files.

    Of the 600 photographs of its training part the first 400 are trained on; of all 900 those 600.
    Its test part, 00600 to 00899, and any other selection are all tested on. Photographs are hard
    links, which take no room, or copies where the file system has no links.

    Args:
        root: folder for the result.
        source: folder of the photographs, 00000.ppm or .jpg and so on, and of gt.txt, which has a
            line `file;left;top;right;bottom;class` for each sign.
        all_test: put all photographs into test/.

    Returns:
        The folder made: `root/gtsdb`, or `root/gtsdb_all` with `all_test`.

    Raises:
        LabError: files missing, a table that cannot be read, or the result exists already.
    """
    target = root / ("gtsdb_all" if all_test else "gtsdb")
    every, table, signs = _benchmark(source, target)
    splits = _split(every, all_test)
    photographs = [(path, Path(split, path.name)) for split in splits for path in splits[split]]

    def put(file: Path, place: Path) -> None:
        if file == table:
            content = _as_coco(splits[place.parent.name], signs)
            place.write_text(json.dumps(content), encoding="utf-8")
        else:
            link_or_copy(file, place)

    tables = [(table, Path(split, "annotations.json")) for split in splits]
    lay_out(photographs + tables, target, put)
    say_counts(target, (place for _, place in photographs))
    return target


def cut_gtsdb(root: Path, source: Path) -> Path:
    """Cut the signs of the benchmark out, those of `LEAST_SIDE` pixels and more, to test on.

    Each with the margin that the photographs of GTSRB have.

    Args:
        root, source: as of `prepare_gtsdb`.

    Returns:
        The folder made, `root/gtsdb_signs`, which has test/CLASS/PHOTOGRAPH_LINE.png.

    Raises:
        LabError: as of `prepare_gtsdb`.
    """
    target = root / "gtsdb_signs"
    photographs, table, signs = _benchmark(source, target)
    names = folders_of(CLASSES)
    corners, places = {}, []
    for name, path in photographs.items():
        for number, sign in enumerate(signs.get(name, [])):
            left, top, right, bottom = sign.corners
            if max(right - left, bottom - top) >= LEAST_SIDE:
                place = Path("test", names[sign.label], f"{name}_{number}.png")
                corners[place.name] = sign.corners
                places.append((path, place))
    if not places:
        raise LabError(f"{table} has no sign of {LEAST_SIDE} pixels or more")

    def put(path: Path, place: Path) -> None:
        cut_out(read_image(path), corners[place.name]).save(place)

    lay_out(places, target, put)
    say_counts(target, (place for _, place in places))
    return target


def _benchmark(source: Path, target: Path) -> tuple[dict[str, Path], Path, dict[str, list[Sign]]]:
    """Return the photographs in a folder, its table, and the signs in it of each photograph."""
    if target.exists():
        raise LabError(f"{target} exists already; remove it to lay it out anew")
    table = source / "gt.txt"
    signs, photographs = _read_gtsdb(table), _photographs(source)
    if not signs.keys() & photographs.keys():
        raise LabError(f"{table} has no sign of any photograph in {source}")
    _say_unknown(signs.keys() - photographs.keys(), table)
    return photographs, table, signs


def _photographs(source: Path) -> dict[str, Path]:
    """Return the photographs of a folder, by their names without ending, in the order of these."""
    with attempt(f"read {source}"):
        paths = [path for path in source.iterdir() if path.suffix.lower() in ENDINGS]
    ranked = sorted(paths, key=lambda path: (path.stem, ENDINGS.index(path.suffix.lower())))
    kept = {path.stem: path for path in reversed(ranked) if path.name[0] != "."}
    if not kept:
        raise LabError(f"{source} holds no photographs")
    return dict(sorted(kept.items()))


def _split(photographs: dict[str, Path], all_test: bool) -> dict[str, list[Path]]:
    """Return the photographs of train, if there are any, and of test."""
    every, there = list(photographs.values()), photographs.keys()
    known = [f"{number:05d}" for number in range(COUNT + TESTS)]
    trained = 0
    if not all_test and there == set(known[:COUNT]):
        trained = TRAIN
    elif not all_test and there == set(known):
        trained = COUNT
    elif not all_test:
        text = f"these {len(every):,} photographs are neither {known[0]} to {known[COUNT - 1]}"
        lacking = [name for name in known[:COUNT] if name not in there]
        if 0 < len(lacking) < COUNT:
            text += f" ({lacking[0]} is not there)"
        say(f"{text} nor these and the test part: all of them are for testing")
    splits = {"train": every[:trained], "test": every[trained:]}
    return {split: paths for split, paths in splits.items() if paths}


def _say_unknown(names: set[str], table: Path) -> None:
    """Name the photographs that a table has rows of and that are not there."""
    if names:
        shown = ", ".join(map(printable, sorted(names)[:3])) + ", ..." * (len(names) > 3)
        say(f"{table} has signs of {len(names):,} photographs that are not there: {shown}")


def _read_gtsdb(table: Path) -> dict[str, list[Sign]]:
    """Return the signs in each photograph, by its name without ending."""
    signs: dict[str, list[Sign]] = {}
    swapped = []
    for number, line in enumerate(read_lines(table), 1):
        try:
            name, *corners, text = (word.strip() for word in line.split(";"))
            x1, y1, x2, y2 = map(float, corners)
            label = int(text)
        except ValueError as error:
            wanted = "file;left;top;right;bottom;class"
            raise LabError(f"{table}, line {number}: {line[:60]!r} is not {wanted}") from error
        if not 0 <= label < len(CLASSES):
            known = f"the benchmark's are 0 to {len(CLASSES) - 1}"
            raise LabError(f"{table}, line {number}: {line[:60]!r} is of class {label}; {known}")
        if x1 > x2 or y1 > y2:
            swapped.append(number)
        sign = Sign(label, [min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)])
        signs.setdefault(Path(name).stem, []).append(sign)
    if swapped:
        say(f"{table}: {len(swapped):,} lines with swapped corners, put right (line {swapped[0]})")
    return signs


def _as_coco(photographs: Sequence[Path], signs: dict[str, list[Sign]]) -> dict[str, list[dict]]:
    """Return what COCO's annotations.json holds of photographs."""
    images, annotations = [], []
    for image_id, path in enumerate(photographs, 1):
        width, height = read_image(path).size
        images.append({"id": image_id, "file_name": path.name, "height": height, "width": width})
        for label, (left, top, right, bottom) in signs.get(path.stem, []):
            w, h = right - left, bottom - top
            sign = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1}
            annotations.append(sign | {"bbox": [left, top, w, h], "area": w * h, "iscrowd": 0})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}
