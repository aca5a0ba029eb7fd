"""Published data sets, laid out as the train/val/test folders that every script reads.

python datasets.py gtsrb                   # the real benchmark, 26 classes, under data/gtsrb26
python datasets.py gtsrb --classes 43      # all of its classes, under data/gtsrb43
python datasets.py gtsrb --source FOLDER   # from files already on disk, no connection needed
"""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from console import LabError, progress, say

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

    partial = root / f".gtsrb{num_classes}-{os.getpid()}"
    try:
        for path, place in progress(placed, label="laying out"):
            (partial / place).parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.save(partial / place)
        partial.rename(target)
    except OSError as error:
        raise LabError(f"cannot lay out {target}: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for mode in ("train", "val", "test"):
        count = sum(place.parts[0] == mode for _, place in placed)
        say(f"{target / mode}: {count:,} photographs")
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
