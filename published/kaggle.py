"""Kaggle's competitions cifar-10 and dog-breed-identification, as folders of images.

python datasets.py kaggle --kind cifar10 --root FOLDER    # FOLDER/trainLabels.csv, train/, test/
python datasets.py kaggle --kind dogs --root FOLDER       # FOLDER/labels.csv, train/, test/
"""

import csv
import io
from collections import Counter
from pathlib import Path

from lab.console import LabError, UsageError, say
from lab.files import read_text
from lab.holdout import held_out
from published import KAGGLE_TABLES
from published.layout import ENDINGS, lay_out, link_or_copy, say_counts

HELD_OUT_SHARE = 0.1  # of the labelled images of a class for val, as for test; at least one each


def prepare_kaggle(root: Path, kind: str, target: Path, seed: int = 0) -> None:
    """Lay the files of a Kaggle competition out as train/val/test folders, stratified by class.

    Kaggle keeps the labels of its own test/ to itself, so no accuracy can be measured there: all
    three splits are taken from the labelled images. Kaggle's test images, if there are any, go to
    `target/unlabelled/unknown`, a folder of images like a split with one class.

    Images are hard links, which take no room, or copies where the file system has no links. When
    `target` exists, what is missing there is added and nothing else is touched.

    Args:
        root: folder with train/, the table of labels, and test/ if there is one.
        kind: in `KAGGLE_TABLES`.
        target: folder to make.
        seed: of the split, which does not depend on the order of the table.

    Raises:
        LabError: images and table do not belong together, or `target` holds something else.
        UsageError: `target` would mix with Kaggle's own folders.
    """
    inner = [(root / name).resolve() for name in ("train", "test")]
    whole = target.resolve()
    if root.resolve().is_relative_to(whole) or any(map(whole.is_relative_to, inner)):
        raise UsageError(f"--target {target} would mix with the files in {root}; name a new folder")
    table, *columns = KAGGLE_TABLES[kind]
    labels = _read_labels(root / table, *columns)
    images = _images_by_id(root / "train")
    _check_same_ids(images, labels, root / table)
    for label, count in sorted(Counter(labels.values()).items()):
        if count < 3:
            raise LabError(
                f"{root / table} has {count} of class {label}; train, val and test need one each"
            )
    ids = sorted(labels)
    held = held_out(map(labels.get, ids), ids, HELD_OUT_SHARE, parts=2, seed=seed)
    placed: list[tuple[Path, Path]] = []
    for image_id, part in zip(ids, held, strict=True):
        mode, image = ("train", "val", "test")[part], images[image_id]
        placed.append((image, Path(mode, labels[image_id], image.name)))
    if (root / "test").is_dir():
        unlabelled = _images_by_id(root / "test").values()
        placed += [(image, Path("unlabelled", "unknown", image.name)) for image in unlabelled]

    sizes = {place: image.stat().st_size for image, place in placed}
    files = (path for path in target.rglob("[!.]*") if path.is_file())
    present = {path.relative_to(target): path.stat().st_size for path in files}
    foreign = sorted(place for place, size in present.items() if sizes.get(place) != size)
    if foreign:
        raise LabError(
            f"{target} holds {len(foreign):,} files that do not follow from {root}, such as "
            f"{foreign[0]}; if the images or labels have changed, name a new --target"
        )
    missing = [(image, place) for image, place in placed if place not in present]
    if present:
        say(f"{target} was there already; {len(missing):,} of {len(placed):,} images were missing")
    lay_out(missing, target, link_or_copy)
    say_counts(target, sizes)


def _read_labels(table: Path, id_column: str, label_column: str) -> dict[str, str]:
    """Return the class of each image, by the image's name without ending."""
    if not table.is_file():
        names = ", ".join(f"{kind}: {names[0]}" for kind, names in KAGGLE_TABLES.items())
        raise LabError(f"no table of labels {table} (--kind {names})")
    labels: dict[str, str] = {}
    try:
        rows = csv.DictReader(io.StringIO(read_text(table)))
        if not {id_column, label_column} <= set(rows.fieldnames or ()):
            raise LabError(f"{table} has no columns {id_column} and {label_column}")
        for row in rows:
            image_id, label = ((row[name] or "").strip() for name in (id_column, label_column))
            where = f"{table}, line {rows.line_num}"
            if not image_id or not label:
                raise LabError(f"{where} lacks {id_column} or {label_column}")
            # A label names a folder inside each split; a hidden one would not be read.
            if label.startswith(".") or set(label) & set("/\\") or not label.isprintable():
                raise LabError(f"{where}: the class {label!r} cannot name a folder")
            if image_id in labels:
                raise LabError(f"{where}: image {image_id} has a label already")
            labels[image_id] = label
    except csv.Error as error:
        raise LabError(f"cannot read {table}: {error}") from error
    if not labels:
        raise LabError(f"{table} holds no labels")
    return labels


def _images_by_id(folder: Path) -> dict[str, Path]:
    """Return the images of a folder by their names without ending."""
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise LabError(
            f"cannot read {folder}: {error.strerror}; --root takes the folder of Kaggle's train/"
        ) from error
    images: dict[str, Path] = {}
    for path in paths:
        if path.suffix.lower() in ENDINGS[1:] and path.name[0] != "." and path.is_file():
            if path.stem in images:
                pair = f"{images[path.stem].name} and {path.name}"
                raise LabError(f"{folder} holds image {path.stem} twice: {pair}")
            images[path.stem] = path
    return images


def _check_same_ids(images: dict[str, Path], labels: dict[str, str], table: Path) -> None:
    for odd, problem in (
        (labels.keys() - images.keys(), "labels {} images that train/ does not hold"),
        (images.keys() - labels.keys(), "has no label for {} images in train/"),
    ):
        if odd:
            shown = ", ".join(sorted(odd)[:3]) + (", ..." if len(odd) > 3 else "")
            raise LabError(f"{table} {problem.format(f'{len(odd):,}')}: {shown}")
