"""The German Traffic Sign Recognition Benchmark (Stallkamp et al. 2012), as folders of images.

python datasets.py gtsrb                       # real traffic signs, 26 classes, under data/gtsrb26
python datasets.py gtsrb --classes 43          # all of its classes, under data/gtsrb43
python datasets.py gtsrb --data_root FOLDER    # from files on disk: torchvision's, its authors' or
                                               # Kaggle's copy; no connection needed
"""

import csv
from pathlib import Path
from typing import NamedTuple

from lab.console import LabError, say
from lab.downloads import torchvision_set
from lab.files import reason
from lab.folders import unfinished
from lab.holdout import held_out
from lab.images import open_image, say_left_out
from published.layout import ENDINGS, lay_out, say_counts
from world.faces import FACES

CLASSES = tuple(FACES)  # the benchmark's 43 in its own order
# The 26 of them that the assignment tells apart.
COURSE = (0, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 14, 15, 17, 18, 19, 20, 22, 24, 26, 33, 34, 35)
COURSE += (38, 40)
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
    target = root / f"gtsrb{num_classes}"
    if target.exists():
        raise LabError(f"{target} exists already; remove it to lay it out anew")
    source = source or download_gtsrb(root)
    training, tests = read_gtsrb(source)
    kept = COURSE if num_classes == 26 else range(len(CLASSES))
    names = {old: f"{new:02d}_{CLASSES[old]}" for new, old in enumerate(kept)}
    placed = _places(training, tests, names, seed)
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
            problems[path] = reason(error)
        else:
            image.save(place)

    lay_out(placed, target, put)
    say_left_out(source, len(placed), problems)
    say_counts(target, (place for path, place in placed if path not in problems))
    return target


def _places(
    training: list[Photograph], tests: list[Photograph], names: dict[int, str], seed: int
) -> list[tuple[Path, Path]]:
    """Return the photographs of the classes that have names, and where each belongs."""
    training = sorted((p for p in training if p.label in names), key=lambda p: (p.label, p.track))
    for old in names:
        tracks = {photograph.track for photograph in training if photograph.label == old}
        if len(tracks) < 2:
            raise LabError(f"class {old:05d} has {len(tracks)} tracks; train and val need one each")
    labels, tracks = ([photograph[k] for photograph in training] for k in (1, 2))
    held = held_out(labels, tracks, VAL_SHARE, seed=seed)
    modes = [("train", "val")[part] for part in held] + ["test"] * len(tests)
    return [
        (path, Path(mode, names[label], f"{path.stem}.png"))
        for mode, (path, label, _) in zip(modes, training + tests, strict=True)
        if label in names
    ]


def download_gtsrb(root: Path) -> Path:
    """Download the benchmark into `root/gtsrb`, unless it is there; whole or not at all.

    Raises:
        LabError: no connection, or `root` cannot be written.
    """
    target = root / "gtsrb"
    if target.is_dir():
        return target
    try:
        with unfinished(target) as incoming:
            for split in ("train", "test"):
                torchvision_set("GTSRB")(incoming, split=split, download=True)
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
        if not place.name.isdecimal() or int(place.name) >= len(CLASSES):
            say(f"{place} is no class of the benchmark: left out")
            continue
        for path in sorted(place.iterdir()):
            if path.suffix.lower() in ENDINGS and path.name[0] != ".":
                track, _ = path.stem.split("_")[-2:]
                photographs.append(Photograph(path, int(place.name), track))
    return photographs


def _test_photographs(table: Path, base: Path, images: Path) -> list[Photograph]:
    """Return the rows of a table that names files in `images`, or as paths from `base`."""
    with table.open(newline="", encoding="utf-8") as file:
        delimiter = ";" if ";" in file.readline() else ","
        file.seek(0)
        photographs = []
        for row in csv.DictReader(file, delimiter=delimiter):
            path = base / row["Path"] if "Path" in row else images / row["Filename"]
            photographs.append(Photograph(path, int(row["ClassId"]), track=""))
        return photographs
