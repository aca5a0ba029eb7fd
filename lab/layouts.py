"""Published data sets, laid out as the train/val/test folders that every script reads.

python datasets.py gtsrb                       # real traffic signs, 26 classes, under data/gtsrb26
python datasets.py gtsrb --classes 43          # all of its classes, under data/gtsrb43
python datasets.py gtsrb --data_root FOLDER    # from files on disk: torchvision's, its authors' or
                                               # Kaggle's copy; no connection needed
python datasets.py gtsdb --data_root FOLDER    # signs in street photographs: 400 train, 200 test
python datasets.py kaggle --kind cifar10 --root FOLDER    # FOLDER/trainLabels.csv, train/, test/
python datasets.py kaggle --kind dogs --root FOLDER       # FOLDER/labels.csv, train/, test/

Sources: GTSRB (Stallkamp et al. 2012), GTSDB (Houben et al. 2013); Kaggle's competitions cifar-10
and dog-breed-identification.
"""

import csv
import json
import os
import shlex
import shutil
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lab.console import LabError, UsageError, progress, say
from lab.folders import DATA_ROOT, near, unfinished

Places = Sequence[tuple[Path, Path]]  # files, and where in the layout each belongs


def _lay_out(places: Places, target: Path, put: Callable[[Path, Path], None]) -> None:
    """Call `put(file, place)` for each; `target` appears, or is completed, only by whole files.

    Raises:
        LabError: a file cannot be read or written; nothing half-made is left.
    """
    try:
        with unfinished(target) as partial:
            for file, place in progress(places, label="laying out"):
                (partial / place).parent.mkdir(parents=True, exist_ok=True)
                put(file, partial / place)
            if not target.exists():
                partial.rename(target)
                return
            for _, place in places:
                (target / place).parent.mkdir(parents=True, exist_ok=True)
                (partial / place).rename(target / place)
    except OSError as error:
        raise LabError(f"cannot lay out {target}: {error}") from error


def _say_counts(target: Path, places: Iterable[Path]) -> None:
    for split, count in sorted(Counter(place.parts[0] for place in places).items()):
        say(f"{target / split}: {count:,} images")


# ---------------------------------------------------------------- GTSRB

# The benchmark's 43 classes in its own order (Stallkamp et al. 2012).
GTSRB_CLASSES = (
    "speed_limit_20",
    "speed_limit_30",
    "speed_limit_50",
    "speed_limit_60",
    "speed_limit_70",
    "speed_limit_80",
    "end_of_speed_limit_80",
    "speed_limit_100",
    "speed_limit_120",
    "no_overtaking",
    "no_overtaking_by_trucks",
    "priority_crossing",
    "priority_road",
    "give_way",
    "stop",
    "no_vehicles",
    "no_trucks",
    "no_entry",
    "general_caution",
    "curve_left",
    "curve_right",
    "double_curve",
    "bumpy_road",
    "slippery_road",
    "road_narrows",
    "road_works",
    "traffic_signals",
    "pedestrians",
    "children",
    "bicycles",
    "snow",
    "wild_animals",
    "end_of_limits",
    "turn_right",
    "turn_left",
    "ahead_only",
    "ahead_or_right",
    "ahead_or_left",
    "keep_right",
    "keep_left",
    "roundabout",
    "end_of_no_overtaking",
    "end_of_no_overtaking_by_trucks",
)
# The 26 of them that the assignment tells apart.
GTSRB_26 = (0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 15, 17, 18, 19, 20, 22, 24, 26, 33, 34, 35)
GTSRB_26 += (38, 40)
GTSRB_ENDINGS = (".ppm", ".png", ".jpg", ".jpeg")
VAL_SHARE = 0.15  # of the tracks of each class, at least one


class Photograph(NamedTuple):
    """One of the benchmark's files."""

    path: Path
    label: int
    track: str  # the frames of one sign share it; "" of a test photograph


def prepare_gtsrb(root: Path, num_classes: int, source: Path | None, seed: int = 0) -> Path:
    """Lay the German Traffic Sign Recognition Benchmark out as train/val/test folders.

    The benchmark films each sign as a track of 30 frames; validation takes whole tracks, so that
    no sign is in two splits. Files that are damaged are named and left out.

    Args:
        root: folder for the download (root/gtsrb) and the result.
        num_classes: 26 or 43.
        source: folder of the benchmark, as torchvision, its authors or Kaggle lay it out; None
            downloads it.
        seed: of the choice of validation tracks.

    Returns:
        The folder made, `root/gtsrb26` or `root/gtsrb43`.

    Raises:
        LabError: no connection, files missing, or the result exists already.
    """
    from lab.images import open_image, say_left_out

    target = root / f"gtsrb{num_classes}"
    if target.exists():
        raise LabError(f"{target} exists already; remove it to lay it out anew")
    source = source or download_gtsrb(root)
    training, tests = read_gtsrb(source)
    kept = GTSRB_26 if num_classes == 26 else range(len(GTSRB_CLASSES))
    names = {old: f"{new:02d}_{GTSRB_CLASSES[old]}" for new, old in enumerate(kept)}

    rng = np.random.default_rng(seed)
    placed: list[tuple[Path, Path]] = []
    for old, name in names.items():
        own = [photograph for photograph in training if photograph.label == old]
        tracks = sorted({photograph.track for photograph in own})
        if len(tracks) < 2:
            raise LabError(f"class {old:05d} has {len(tracks)} tracks; train and val need one each")
        val_count = max(1, round(VAL_SHARE * len(tracks)))
        val_tracks = set(rng.permutation(tracks)[:val_count].tolist())
        for path, _, track in own:
            mode = "val" if track in val_tracks else "train"
            placed.append((path, Path(mode, name, f"{path.stem}.png")))
        tested = [path for path, label, _ in tests if label == old]
        placed += [(path, Path("test", name, f"{path.stem}.png")) for path in tested]

    missing = [path for path, _ in placed if not path.is_file()]
    if missing:
        raise LabError(
            f"{source} lacks {len(missing):,} of {len(placed):,} photographs, such as {missing[0]}"
        )
    problems: dict[Path, str] = {}

    def put(path: Path, place: Path) -> None:
        try:
            image = open_image(path)
        except OSError as error:
            problems[path] = error.strerror or str(error)
        else:
            image.save(place)

    _lay_out(placed, target, put)
    say_left_out(source, len(placed), problems)
    _say_counts(target, (place for path, place in placed if path not in problems))
    return target


def download_gtsrb(root: Path) -> Path:
    """Download the benchmark into `root/gtsrb`, unless it is there; whole or not at all.

    Raises:
        LabError: no connection, or `root` cannot be written.
    """
    target = root / "gtsrb"
    if target.is_dir():
        return target
    from torchvision.datasets import GTSRB

    try:
        with unfinished(target) as incoming:
            for split in ("train", "test"):
                GTSRB(incoming, split=split, download=True)
            (incoming / "gtsrb").rename(target)
    except (OSError, RuntimeError) as error:
        raise LabError(
            f"could not download GTSRB ({error}); name a copy on disk with --data_root, or use the "
            "built-in data"
        ) from error
    return target


def read_gtsrb(source: Path) -> tuple[list[Photograph], list[Photograph]]:
    """Return the photographs for training and those for testing, whoever laid them out.

    torchvision has `gtsrb/GTSRB/Training/000NN`, the benchmark's authors `GTSRB/Final_Training/
    Images/000NN`, both with a table GT-final_test.csv; Kaggle's copy has `Train/NN` and Test.csv.

    Raises:
        LabError: `source` holds none of these, or a table that cannot be read.
    """
    bases = (source, source / "GTSRB", source / "gtsrb" / "GTSRB")
    names = ("Training", "Final_Training/Images", "Train")
    found = [(base, base / name) for base in bases for name in names if (base / name).is_dir()]
    if not found:
        raise LabError(
            f"{source} holds no copy of the benchmark: neither GTSRB/Training (torchvision), nor "
            "GTSRB/Final_Training/Images (its authors), nor Train (Kaggle)"
        )
    base, training = found[0]
    images = base / "Final_Test" / "Images"
    places = (base.parent, base, images.parent, images)
    tables = [base / "Test.csv", *(place / "GT-final_test.csv" for place in places)]
    table = next((path for path in tables if path.is_file()), None)
    if table is None:
        raise LabError(f"{base} has no table of test photographs, GT-final_test.csv or Test.csv")
    try:
        return _training_photographs(training), _test_photographs(table, base, images)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise LabError(f"{base} is not the benchmark as published: {error!r}") from error


def _training_photographs(folder: Path) -> list[Photograph]:
    """Return the photographs in folders of classes, named TRACK_FRAME or CLASS_TRACK_FRAME."""
    photographs = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        if not place.name.isdecimal() or int(place.name) >= len(GTSRB_CLASSES):
            say(f"{place} is no class of the benchmark: left out")
            continue
        for path in sorted(place.iterdir()):
            if path.suffix.lower() in GTSRB_ENDINGS and path.name[0] != ".":
                track, _ = path.stem.split("_")[-2:]
                photographs.append(Photograph(path, int(place.name), track))
    return photographs


def _test_photographs(table: Path, base: Path, images: Path) -> list[Photograph]:
    """Return the rows of a table that names files in `images`, or as paths from `base`."""
    with table.open(newline="") as file:
        delimiter = ";" if ";" in file.readline() else ","
        file.seek(0)
        return [
            Photograph(
                base / row["Path"] if "Path" in row else images / row["Filename"],
                int(row["ClassId"]),
                track="",
            )
            for row in csv.DictReader(file, delimiter=delimiter)
        ]


# ---------------------------------------------------------------- GTSDB

GTSDB_COUNT, GTSDB_TRAIN = 600, 400  # annotated photographs; those of them to train on
GTSDB_ENDINGS = (".ppm", ".jpg", ".jpeg", ".png")


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
    for number in range(GTSDB_COUNT):
        names = [source / f"{number:05d}{ending}" for ending in GTSDB_ENDINGS]
        path = next((path for path in names if path.is_file()), None)
        if path is None:
            raise LabError(f"{source} lacks photograph {number:05d} of {GTSDB_COUNT}")
        split = "test" if all_test or number >= GTSDB_TRAIN else "train"
        splits.setdefault(split, []).append(path)
    photographs = [(path, Path(split, path.name)) for split in splits for path in splits[split]]

    def put(file: Path, place: Path) -> None:
        if file == table:
            content = _as_coco(splits[place.parent.name], signs)
            place.write_text(json.dumps(content), encoding="utf-8")
        else:
            _link_or_copy(file, place)

    tables = [(table, Path(split, "annotations.json")) for split in splits]
    _lay_out(photographs + tables, target, put)
    _say_counts(target, (place for _, place in photographs))
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
            GTSRB_CLASSES[int(label)]
        except (ValueError, IndexError) as error:
            wanted = "file;left;top;right;bottom;class"
            raise LabError(f"{table}, line {number}: {line[:60]!r} is not {wanted}") from error
        signs.setdefault(Path(name).stem, []).append((int(label), [left, top, right, bottom]))
    return signs


def _as_coco(
    photographs: Sequence[Path], signs: dict[str, list[tuple[int, list[float]]]]
) -> dict[str, list[dict]]:
    """Return what COCO's annotations.json holds of photographs."""
    from lab.images import open_image

    images, annotations = [], []
    for image_id, path in enumerate(photographs, 1):
        try:
            width, height = open_image(path).size
        except OSError as error:
            raise LabError(f"{path}: {error.strerror or error}") from error
        images.append({"id": image_id, "file_name": path.name, "height": height, "width": width})
        for label, (left, top, right, bottom) in signs.get(path.stem, []):
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": label + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": (right - left) * (bottom - top),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(GTSRB_CLASSES)]
    return {"images": images, "annotations": annotations, "categories": categories}


# ---------------------------------------------------------------- Kaggle

# The table of labels by kind, with its columns: an image's name without ending, and its class.
KAGGLE_TABLES = {
    "cifar10": ("trainLabels.csv", "id", "label"),
    "dogs": ("labels.csv", "id", "breed"),
}
KAGGLE_ENDINGS = (".png", ".jpg", ".jpeg")
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
    ids_of: dict[str, list[str]] = {}
    for image_id, label in sorted(labels.items()):
        ids_of.setdefault(label, []).append(image_id)

    rng = np.random.default_rng(seed)
    placed: list[tuple[Path, Path]] = []
    for label, ids in sorted(ids_of.items()):
        if len(ids) < 3:
            raise LabError(
                f"{root / table} has {len(ids)} of class {label}; train, val and test need one each"
            )
        held_out = max(1, round(HELD_OUT_SHARE * len(ids)))
        for rank, index in enumerate(rng.permutation(len(ids))):
            mode = ("val", "test", "train")[min(rank // held_out, 2)]
            image = images[ids[index]]
            placed.append((image, Path(mode, label, image.name)))
    if (root / "test").is_dir():
        unlabelled = _images_by_id(root / "test").values()
        placed += [(image, Path("unlabelled", "unknown", image.name)) for image in unlabelled]

    sizes = {place: image.stat().st_size for image, place in placed}
    present = _sizes_below(target)
    foreign = sorted(place for place, size in present.items() if sizes.get(place) != size)
    if foreign:
        raise LabError(
            f"{target} holds {len(foreign):,} files that do not follow from {root}, such as "
            f"{foreign[0]}; if the images or labels have changed, name a new --target"
        )
    missing = [(image, place) for image, place in placed if place not in present]
    if present:
        say(f"{target} was there already; {len(missing):,} of {len(placed):,} images were missing")
    _lay_out(missing, target, _link_or_copy)
    _say_counts(target, sizes)


def _read_labels(table: Path, id_column: str, label_column: str) -> dict[str, str]:
    """Return the class of each image, by the image's name without ending."""
    if not table.is_file():
        names = ", ".join(f"{kind}: {names[0]}" for kind, names in KAGGLE_TABLES.items())
        raise LabError(f"no table of labels {table} (--kind {names})")
    labels: dict[str, str] = {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not {id_column, label_column} <= set(rows.fieldnames or ()):
                raise LabError(f"{table} has no columns {id_column} and {label_column}")
            for row in rows:
                image_id = (row[id_column] or "").strip()
                label = (row[label_column] or "").strip()
                where = f"{table}, line {rows.line_num}"
                if not image_id or not label:
                    raise LabError(f"{where} lacks {id_column} or {label_column}")
                # A label names a folder inside each split; a hidden one would not be read.
                if label.startswith(".") or set(label) & set("/\\") or not label.isprintable():
                    raise LabError(f"{where}: the class {label!r} cannot name a folder")
                if image_id in labels:
                    raise LabError(f"{where}: image {image_id} has a label already")
                labels[image_id] = label
    except (OSError, UnicodeDecodeError, csv.Error) as error:
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
        if path.suffix.lower() in KAGGLE_ENDINGS and path.name[0] != "." and path.is_file():
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


def _sizes_below(folder: Path) -> dict[Path, int]:
    """Return the size in bytes of every file that is not hidden, by its path in the folder."""
    return {
        path.relative_to(folder): path.stat().st_size
        for path in folder.rglob("[!.]*")
        if path.is_file()
    }


def _link_or_copy(file: Path, place: Path) -> None:
    try:
        os.link(file.resolve(), place)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(file, place)


# ---------------------------------------------------------------- python datasets.py


def add_gtsrb(commands: Any) -> None:
    """Add `gtsrb` to the parser's commands."""
    command = commands.add_parser(
        "gtsrb", help="real photographs of traffic signs", allow_abbrev=False
    )
    root = near(DATA_ROOT)
    command.add_argument("--root", type=Path, default=root, help="(default %(default)s)")
    command.add_argument("--classes", type=int, choices=(26, 43), default=26)
    command.add_argument(
        "--data_root", "--source", type=Path, help="a copy of the benchmark that is on disk already"
    )
    command.set_defaults(make=_make_gtsrb)


def _make_gtsrb(args: Namespace) -> None:
    target = prepare_gtsrb(args.root, args.classes, args.data_root)
    say(f"Train on it: python train.py --bn --stn --augment --data_root {shlex.quote(str(target))}")


def add_gtsdb(commands: Any) -> None:
    """Add `gtsdb` to the parser's commands."""
    command = commands.add_parser(
        "gtsdb", help="signs in photographs of streets", allow_abbrev=False
    )
    command.add_argument("--root", type=Path, default=near(DATA_ROOT), help="(default %(default)s)")
    command.add_argument(
        "--data_root", "--source", type=Path, required=True, help="folder of the benchmark's files"
    )
    command.add_argument(
        "--all_test", action="store_true", help="all 600 photographs to test on, none to train on"
    )
    command.set_defaults(make=_make_gtsdb)


def _make_gtsdb(args: Namespace) -> None:
    target = shlex.quote(str(prepare_gtsdb(args.root, args.data_root, args.all_test)))
    if args.all_test:
        say(f"Test on it: python test.py --ckpt_path RUN --data_root {target}")
    else:
        say(f"Train on it: python train.py --task detection --dataset gtsdb --data_root {target}")


def add_kaggle(commands: Any) -> None:
    """Add `kaggle` to the parser's commands."""
    command = commands.add_parser("kaggle", help="a competition's files", allow_abbrev=False)
    command.add_argument("--kind", choices=tuple(KAGGLE_TABLES), required=True, help="which layout")
    command.add_argument("--root", type=Path, required=True, help="folder that holds its train/")
    command.add_argument("--target", type=Path, help="folder to make (default ROOT/train_val_test)")
    command.set_defaults(make=_make_kaggle)


def _make_kaggle(args: Namespace) -> None:
    target = args.target or args.root / "train_val_test"
    prepare_kaggle(args.root, args.kind, target)
    where = shlex.quote(str(target))
    say(f"Train on it: python train.py --dataset folder --bn --data_root {where}")
