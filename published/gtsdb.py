"""The German Traffic Sign Detection Benchmark (Houben et al. 2013): photographs, COCO's files.

python datasets.py gtsdb --data_root FOLDER    # signs in street photographs: 400 train, 200 test
"""

import json
from collections.abc import Sequence
from pathlib import Path

from lab.console import LabError
from lab.images import read_image
from published.gtsrb import CLASSES
from published.layout import ENDINGS, lay_out, link_or_copy, say_counts

COUNT, TRAIN = 600, 400  # annotated photographs; those of them to train on


def prepare_gtsdb(root: Path, source: Path, all_test: bool = False) -> Path:
    """Lay the German Traffic Sign Detection Benchmark out as photographs with COCO's files.

    Photographs are hard links, which take no room, or copies where the file system has no links.

    Args:
        root: folder for the result.
        source: folder of the photographs, 00000.ppm or .jpg to 00599, and of gt.txt, which has a
            line `file;left;top;right;bottom;class` for each sign.
        all_test: put all photographs into test/, not the first 400 into train/.

    Returns:
        The folder made: `root/gtsdb`, or `root/gtsdb_all` with `all_test`.

    Raises:
        LabError: files missing, a table that cannot be read, or the result exists already.
    """
    target = root / ("gtsdb_all" if all_test else "gtsdb")
    if target.exists():
        raise LabError(f"{target} exists already; remove it to lay it out anew")
    table = source / "gt.txt"
    signs = _read_gtsdb(table)
    splits: dict[str, list[Path]] = {}
    for number in range(COUNT):
        names = [source / f"{number:05d}{ending}" for ending in ENDINGS]
        path = next((path for path in names if path.is_file()), None)
        if path is None:
            raise LabError(f"{source} lacks photograph {number:05d} of {COUNT}")
        split = "test" if all_test or number >= TRAIN else "train"
        splits.setdefault(split, []).append(path)
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


def _read_gtsdb(table: Path) -> dict[str, list[tuple[int, list[float]]]]:
    """Return class and corners of the signs in each photograph, by its name without ending."""
    signs: dict[str, list[tuple[int, list[float]]]] = {}
    try:
        lines = table.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LabError(f"cannot read {table}: {error}") from error
    for number, line in enumerate(filter(str.strip, lines), 1):
        try:
            name, *corners, label = line.split(";")
            left, top, right, bottom = map(float, corners)
            CLASSES[int(label)]
        except (ValueError, IndexError) as error:
            wanted = "file;left;top;right;bottom;class"
            raise LabError(f"{table}, line {number}: {line[:60]!r} is not {wanted}") from error
        signs.setdefault(Path(name).stem, []).append((int(label), [left, top, right, bottom]))
    return signs


def _as_coco(
    photographs: Sequence[Path], signs: dict[str, list[tuple[int, list[float]]]]
) -> dict[str, list[dict]]:
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
