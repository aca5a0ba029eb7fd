"""Published data sets, laid out as the train/val/test folders that every script reads.

python datasets.py gtsrb                     # real traffic signs, 26 classes, under data/gtsrb26
python datasets.py gtsrb --classes 43        # all of its classes, under data/gtsrb43
python datasets.py gtsrb --source FOLDER     # from files already on disk, no connection needed
python datasets.py kaggle --kind cifar10 --root FOLDER    # FOLDER/trainLabels.csv, train/, test/
python datasets.py kaggle --kind dogs --root FOLDER       # FOLDER/labels.csv, train/, test/

Sources: GTSRB (Stallkamp et al. 2012); Kaggle's competitions cifar-10 and dog-breed-identification.
"""

import csv
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lab.console import DATA_ROOT, LabError, Parser, UsageError, progress, say

Places = Sequence[tuple[Path, Path]]  # files, and where in the layout each belongs


def _lay_out(places: Places, target: Path, put: Callable[[Path, Path], None]) -> None:
    """Call `put(file, place)` for each; `target` appears, or is completed, only by whole files.

    Raises:
        LabError: a file cannot be read or written; nothing half-made is left.
    """
    partial = target.parent / f".{target.name}-{os.getpid()}"
    try:
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
    finally:
        shutil.rmtree(partial, ignore_errors=True)


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
VAL_SHARE = 0.15  # of the tracks of each class, at least one


def prepare_gtsrb(root: Path, num_classes: int, source: Path | None, seed: int = 0) -> Path:
    """Lay the German Traffic Sign Recognition Benchmark out as train/val/test folders.

    The benchmark films each sign as a track of 30 frames; validation takes whole tracks, so that
    no sign is in two splits.

    Args:
        root: folder for the download (root/gtsrb) and the result.
        num_classes: 26 or 43.
        source: folder that holds `gtsrb/GTSRB` (torchvision's layout) or is that GTSRB folder;
            None downloads it.
        seed: of the choice of validation tracks.

    Returns:
        The folder made, `root/gtsrb26` or `root/gtsrb43`.

    Raises:
        LabError: no connection, files missing, or the result exists already.
    """
    target = root / f"gtsrb{num_classes}"
    if target.exists():
        raise LabError(f"{target} exists already; remove it to lay it out anew")
    frames, tests = _gtsrb_files(root, source)
    kept = GTSRB_26 if num_classes == 26 else range(len(GTSRB_CLASSES))
    names = {old: f"{new:02d}_{GTSRB_CLASSES[old]}" for new, old in enumerate(kept)}

    rng = np.random.default_rng(seed)
    placed: list[tuple[Path, Path]] = []
    for old, name in names.items():
        tracks = sorted({path.name.split("_")[0] for path, label in frames if label == old})
        if len(tracks) < 2:
            raise LabError(f"class {old:05d} has {len(tracks)} tracks; train and val need one each")
        val_count = max(1, round(VAL_SHARE * len(tracks)))
        val_tracks = set(rng.permutation(tracks)[:val_count].tolist())
        for path, label in frames:
            if label == old:
                mode = "val" if path.name.split("_")[0] in val_tracks else "train"
                placed.append((path, Path(mode, name, f"{path.stem}.png")))
        placed += [(p, Path("test", name, f"{p.stem}.png")) for p, label in tests if label == old]

    def put(path: Path, place: Path) -> None:
        with Image.open(path) as image:
            image.save(place)

    _lay_out(placed, target, put)
    _say_counts(target, (place for _, place in placed))
    return target


def _gtsrb_files(
    root: Path, source: Path | None
) -> tuple[list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Return the training frames and the test photographs, each a file and its class."""
    from torchvision.datasets import GTSRB, ImageFolder

    if source is None:
        try:
            for split in ("train", "test"):
                GTSRB(root, split=split, download=True)
        except (OSError, RuntimeError) as error:
            raise LabError(
                f"could not download GTSRB ({error}); put GTSRB_Final_Training and _Test's GTSRB "
                "folder on disk and name it with --source, or use the built-in data"
            ) from error
        source = root
    folders = (source, source / "GTSRB", source / "gtsrb" / "GTSRB")
    base = next((folder for folder in folders if (folder / "Training").is_dir()), None)
    if base is None:
        raise LabError(f"{source} holds no GTSRB/Training folder of the benchmark")
    try:
        training = ImageFolder(str(base / "Training"))
        with (base.parent / "GT-final_test.csv").open(newline="") as table:
            tests = [
                (base / "Final_Test" / "Images" / row["Filename"], int(row["ClassId"]))
                for row in csv.DictReader(table, delimiter=";")
            ]
    except (OSError, KeyError, ValueError) as error:
        raise LabError(f"{base.parent} is not the benchmark as published: {error}") from error
    frames = [(Path(path), int(training.classes[label])) for path, label in training.samples]
    return sorted(frames), tests


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


def main() -> None:
    """Do what `python datasets.py` is asked for."""
    parser = Parser(description=__doc__.split("\n\n")[0], allow_abbrev=False)
    names = parser.add_subparsers(dest="name", required=True, metavar="gtsrb|kaggle")
    gtsrb = names.add_parser("gtsrb", help="real photographs of traffic signs", allow_abbrev=False)
    gtsrb.add_argument("--root", type=Path, default=DATA_ROOT, help="(default %(default)s)")
    gtsrb.add_argument("--classes", type=int, choices=(26, 43), default=26)
    gtsrb.add_argument("--source", type=Path, help="the benchmark's files, already on disk")
    kaggle = names.add_parser("kaggle", help="a competition's files", allow_abbrev=False)
    kaggle.add_argument("--kind", choices=("cifar10", "dogs"), required=True, help="which layout")
    kaggle.add_argument("--root", type=Path, required=True, help="folder that holds its train/")
    kaggle.add_argument("--target", type=Path, help="folder to make (default ROOT/train_val_test)")
    args = parser.parse_args()

    if args.name == "gtsrb":
        target = prepare_gtsrb(args.root, args.classes, args.source)
    else:
        target = args.target or args.root / "train_val_test"
        prepare_kaggle(args.root, args.kind, target)
    flags = "--bn --stn --augment" if args.name == "gtsrb" else "--dataset folder --bn"
    say(f"Train on it: python train.py {flags} --data_root {target}")
