"""Every source of images, and the one way from a folder of them to a loader.

    python datasets.py gtsrb                               # published data as folders of images:
    python datasets.py kaggle --kind dogs --root FOLDER    # see lab/layouts.py
    python datasets.py street                              # drawn streets, with boxes and labels
    python datasets.py captions                            # drawn signs, with sentences

    loader = get_data_loader("data", "train", 32, batch_size=32, augment=True)
    split = SOURCES["mnist"].read(Path("data"), "train", preprocess)
    loader = make_loader(split, preprocess, batch_size=32, shuffle=True)

Images are decoded once into one uint8 array, which is kept between runs; all later work (gather,
augment, normalise) is done on whole batches.
"""

# ruff: noqa: E402 - the script needs none of the later imports, so that --help answers at once

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.console import LabError, Parser, progress, run, say, seed
from lab.folders import DATA_ROOT, near


def add_drawn(name: str, text: str, draw: Callable[[Path, int], None], commands: Any) -> None:
    """Add a command that draws a data set.

    Args:
        name: of the command and of its folder.
        draw: (folder, seed) makes it.
    """
    drawn = commands.add_parser(name, help=text, allow_abbrev=False)
    drawn.add_argument(
        "--root",
        type=Path,
        default=DATA_ROOT / name,
        help=f"folder to make (default {near(DATA_ROOT / name)})",
    )
    drawn.add_argument("--seed", type=seed, default=0, help="(default %(default)s)")
    drawn.set_defaults(make=lambda args: draw(args.root, args.seed))


def draw_street(root: Path, seed: int = 0) -> None:
    """Draw streets as JPEGs with COCO's and VOC's annotations.

    Raises:
        LabError: the folder holds some already, or cannot be written.
    """
    from world import street

    total = sum(street.SPLITS.values())
    say(f"Drawing {total:,} streets into {near(root)}")
    try:
        with progress(total=total, label="drawing") as bar:
            street.draw_street_dataset(root, seed, street.SPLITS, progress=bar.update)
    except OSError as error:
        raise LabError(f"cannot draw into {root}: {error.strerror or error}") from error
    for split, count in street.SPLITS.items():
        say(f"{near(root / split)}: {count:,} pictures, annotations.json, SegmentationClass/")


def draw_captions(root: Path, seed: int = 0) -> None:
    """Draw signs with sentences about them, as COCO has them.

    Raises:
        LabError: the folder holds some already, or cannot be written.
    """
    from world import captions

    total = len(captions.CLASSES) * sum(captions.SPLITS.values())
    say(f"Drawing {total:,} pictures with captions into {near(root)}")
    try:
        with progress(total=total, label="drawing") as bar:
            captions.draw_captions(root, seed, captions.SPLITS, progress=bar.update)
    except OSError as error:
        raise LabError(f"cannot draw into {root}: {error.strerror or error}") from error
    for split, count in captions.SPLITS.items():
        total = count * len(captions.CLASSES)
        say(f"{near(root / split)}: {total:,} pictures, captions.json")


def draw_missing_street(root: Path) -> None:
    """Draw the street where it belongs, unless it is there."""
    if is_missing(root, "street"):
        draw_street(root)


def draw_missing_captions(root: Path) -> None:
    """Draw the signs with captions where they belong, unless they are there."""
    if is_missing(root, "captions"):
        draw_captions(root)


def is_missing(root: Path, name: str) -> bool:
    """True where a drawn data set belongs, but is not."""
    return root.resolve() == (DATA_ROOT / name).resolve() and not (root / "train").is_dir()


def main() -> None:
    """Do what `python datasets.py` is asked for."""
    from lab import layouts

    parser = Parser(description=layouts.__doc__.split("\n\n")[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="name", required=True)
    for add_command in (layouts.add_gtsrb, layouts.add_kaggle, layouts.add_gtsdb):
        add_command(commands)
    add_drawn("street", "draw streets, with boxes and labels", draw_street, commands)
    add_drawn("captions", "draw signs, with sentences about them", draw_captions, commands)
    commands.metavar = "|".join(commands.choices)
    args = parser.parse_args()
    args.make(args)


if __name__ == "__main__":
    run(main)
    sys.exit()

import hashlib
import math
import os
import re
import stat
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lab.augmentation import Augmentation, augment_batch, augment_digits, mirror_and_crop
from lab.batches import load_batches
from lab.console import UsageError
from lab.folders import located, printable, unfinished
from lab.images import Preprocess, open_image, say_left_out
from lab.settings import TrainSettings

MODES = ("train", "val", "test")
VAL_SHARE = TrainSettings.val_share  # of the training images, where a data set has no val
TRACK = re.compile(r"(.*\d{5})_\d{5}")  # track and frame in GTSRB's names, 00012_00029
CACHE_FOLDER = DATA_ROOT / ".cache"
CACHE_BUDGET = 2 * 2**30  # bytes of decoded images that may be held in memory, a split
CACHE_VERSION = "3"  # raise when `open_image` or `Preprocess.fit` changes what it returns


# ---------------------------------------------------------------- the built-in data set


def draw_signs(data_root: Path) -> None:
    """Draw the built-in data set if `data_root` is the project's own and empty.

    Raises:
        LabError: `data_root` holds some of the splits, but no train/, or cannot be written.
    """
    if os.path.realpath(data_root) != os.path.realpath(DATA_ROOT):
        return
    if (data_root / "train").is_dir():
        return
    present = [mode for mode in MODES if (data_root / mode).exists()]
    if present:
        raise LabError(f"{data_root} holds {' and '.join(present)} but no train/")
    from world import signs

    total = len(signs.CLASSES) * sum(signs.SPLITS.values())
    say(f"No data in {data_root}: drawing the built-in one, {total:,} traffic signs, once.")
    try:
        with progress(total=total, label="drawing") as bar:
            signs.draw_dataset(data_root, progress=bar.update)
    except OSError as error:
        raise LabError(f"cannot draw into {data_root}: {error.strerror or error}") from error


# ---------------------------------------------------------------- splits


@dataclass(frozen=True)
class Split:
    """One split of a data set, as read.

    Attributes:
        classes: of a folder, the names of its folders, sorted; a label is an index into them.
        paths: the readable files, in the order of classes and names; none of an array.
        labels: int64 (N,).
        images: uint8 (N, H, W, C), a folder's at the network's size, an array's at its own; None
            where a folder's would not fit `CACHE_BUDGET`.
    """

    classes: tuple[str, ...]
    paths: list[Path]
    labels: Tensor
    images: Tensor | None


def track(path: Path) -> str:
    """Return what the frames of one sign have in common in their names; else the name itself."""
    match = TRACK.fullmatch(path.stem)
    return match[1] if match else path.name


def held_out(labels: Sequence[int], groups: Sequence[Hashable], share: float) -> np.ndarray:
    """Choose a share of each class's groups, always the same: at least one, never all.

    Args:
        labels: of N images.
        groups: of the same; images of one group and class stay together.

    Returns:
        bool (N,).
    """
    members: dict[int, dict[Hashable, list[int]]] = {}
    for index, (label, group) in enumerate(zip(labels, groups, strict=True)):
        members.setdefault(label, {}).setdefault(group, []).append(index)
    held = np.zeros(len(labels), bool)
    rng = np.random.default_rng(0)
    for _, own in sorted(members.items()):
        indices = list(own.values())
        count = min(len(indices) - 1, max(1, round(share * len(indices))))
        for chosen in rng.permutation(len(indices))[:count]:
            held[indices[chosen]] = True
    return held


def find_listing(
    read: Callable[[Path, str], Any], root: Path, mode: str, share: float
) -> tuple[Any, bool]:
    """Return what `read(root, mode)` lists of a split, and whether it is train parted into two.

    Args:
        read: to a NamedTuple with `pictures`, a list; to None where there is no such split.
        share: of train, held out as val where there is no val.
    """
    if mode == "test" or read(root, "val") is not None:
        return read(root, mode), False
    listing = read(root, "train")
    if listing is None:
        return None, False
    pictures = listing.pictures
    held = held_out([0] * len(pictures), range(len(pictures)), share)
    chosen = [p for p, out in zip(pictures, held, strict=True) if out == (mode == "val")]
    return listing._replace(pictures=chosen), True


def hold_out(split: Split, share: float) -> tuple[Split, Split]:
    """Part an array into what remains and a stratified share of it, always the same.

    Both keep the images' order.
    """
    count = len(split.labels)
    held = torch.from_numpy(held_out(split.labels.tolist(), range(count), share))
    rest, share_of_it = (
        replace(split, labels=split.labels[chosen], images=split.images[chosen])
        for chosen in (~held, held)
    )
    return rest, share_of_it


# ---------------------------------------------------------------- files to uint8 arrays


class File(NamedTuple):
    """A file in a class folder; of a link that leads nowhere, size and time are 0."""

    path: Path
    label: int
    size: int
    modified: int


def class_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders in a split's folder, sorted."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))


def list_files(folder: Path, classes: Sequence[str]) -> list[File]:
    """Return the files in the class folders of a split's folder, in the order of names."""
    files = []
    for label, name in enumerate(classes):
        for entry in sorted(os.scandir(folder / name), key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            try:
                status = entry.stat()
            except OSError:  # a link to nothing or to itself: reading it will say so
                files.append(File(folder / name / entry.name, label, 0, 0))
                continue
            if stat.S_ISREG(status.st_mode):
                path = folder / name / entry.name
                files.append(File(path, label, status.st_size, status.st_mtime_ns))
    return files


def find_files(
    data_root: Path, mode: str, val_share: float
) -> tuple[Path, tuple[str, ...], list[File], bool]:
    """Find the files of a split; arguments and errors as in `read_split`.

    Returns:
        The folder they are in, the names of its class folders, the files, and whether they are
        train/ parted into two.
    """
    if not os.path.isdir(data_root):
        raise LabError(
            f"no data folder {data_root}; --data_root takes one with train/, val/, test/"
        )
    parted = val_share > 0 and mode != "test" and not os.path.isdir(data_root / "val")
    folder = data_root / ("train" if parted else mode)
    if not os.path.isdir(folder):
        raise LabError(
            f"{data_root} has no {folder.name}/; it needs a folder of images a class there"
        )
    try:
        classes = class_folders(folder)
        files = list_files(folder, classes)
        if folder.name != "train" and os.path.isdir(data_root / "train"):
            check_classes(classes, class_folders(data_root / "train"), folder, "train/")
    except OSError as error:
        raise LabError(f"cannot read {error.filename}: {error.strerror}") from error
    if not classes:
        raise LabError(f"{folder} has no class folders; it needs a folder of images a class")
    if parted:
        held = held_out([file.label for file in files], [track(f.path) for f in files], val_share)
        files = [file for file, out in zip(files, held, strict=True) if out == (mode == "val")]
    return folder, classes, files, parted


def fits_in_memory(count: int, preprocess: Preprocess) -> bool:
    """True where `count` images at a network's size stay within `CACHE_BUDGET`."""
    return count * math.prod(preprocess.shape) <= CACHE_BUDGET


def _decode(
    folder: Path, place: str, files: Sequence[File], preprocess: Preprocess, keep: bool
) -> tuple[np.ndarray, dict[Path, str]]:
    """Return the readable images, (n, H, W, C), and what is wrong with the other files.

    Args:
        folder: that the files are in; once it is gone, so is the cache.
        place: tells the cache of these images from others.
        keep: return the images; else only the problems.
    """
    key = hashlib.sha256(repr((CACHE_VERSION, preprocess, keep)).encode())
    for file in files:
        name = f"{file.path.parent.name}/{file.path.name}\0{file.size}\0{file.modified}\n"
        key.update(os.fsencode(name))
    size = "x".join(map(str, preprocess.shape))
    cache = CACHE_FOLDER / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}_{size}.npz"
    try:
        with np.load(cache, allow_pickle=False) as cached:
            if cached["key"] == key.hexdigest():
                return cached["images"], _by_path(files, cached["problems"].tolist())
    except Exception:  # absent, of another layout, or damaged in any way: made anew below
        pass

    def decode(file: File) -> np.ndarray | str:
        try:
            return preprocess.fit(open_image(file.path))
        except OSError as error:
            return error.strerror or str(error) or type(error).__name__

    # Threads suffice: Pillow decodes and resizes outside the interpreter's lock.
    images = np.empty((len(files) if keep else 0, *preprocess.shape), np.uint8)
    problems, readable = [], 0
    with ThreadPoolExecutor() as pool:
        results = progress(pool.map(decode, files), total=len(files), label=f"reading {folder}")
        for result in results:
            problems.append(result if isinstance(result, str) else "")
            if keep and not problems[-1]:
                images[readable] = result
                readable += 1
    images = images[:readable]
    _save_cache(
        cache,
        folder=np.array(os.path.realpath(folder)),
        key=np.array(key.hexdigest()),
        images=images,
        problems=np.array(problems, dtype=str),
    )
    return images, _by_path(files, problems)


def _by_path(files: Sequence[File], problems: Sequence[str]) -> dict[Path, str]:
    """Return the files that have a problem, and which."""
    pairs = zip(files, problems, strict=True)
    return {file.path: problem for file, problem in pairs if problem}


def _save_cache(cache: Path, **arrays: np.ndarray) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        for other in cache.parent.glob("*.npz"):
            if not _is_current(other):
                other.unlink(missing_ok=True)
        with unfinished(cache) as folder:
            folder.mkdir()
            np.savez(folder / cache.name, **arrays)
            (folder / cache.name).replace(cache)
    except OSError as error:  # a read-only clone or a full disk: the next run reads the files again
        say(f"decoded images are not kept for the next run: {error.strerror or error}")


def _is_current(cache: Path) -> bool:
    """True unless the folder that a cache was made from is gone."""
    try:
        with np.load(cache, allow_pickle=False) as cached:
            return os.path.isdir(str(cached["folder"]))
    except Exception:  # damaged in any way
        return False


def read_split(
    data_root: Path, mode: str, preprocess: Preprocess, val_share: float = VAL_SHARE
) -> Split:
    """Read `data_root/mode/class/*`, from the cache if no file has changed since.

    Files that are no readable images are named and left out.

    Args:
        val_share: of train/, held out as val where there is no val/ (see `held_out`); 0 to take
            the folders as they are.

    Raises:
        LabError: no such split, no classes in it, a folder that cannot be read, a class without a
            readable image, or other classes than those of train/.
    """
    folder, classes, files, parted = find_files(data_root, mode, val_share)
    lent = parted and mode == "val"
    if lent:
        say(f"{data_root} has no val/: {len(files):,} images of train/ are held out (--val_share)")
    fits = fits_in_memory(len(files), preprocess)
    if not fits:
        say(
            f"{folder}: {len(files):,} images would take more than {CACHE_BUDGET / 2**30:.1f} GiB "
            "of memory, so they are read from disk batch by batch (see --num_workers)"
        )
    place = os.path.join(os.path.realpath(data_root), mode)
    images, problems = _decode(folder, place, files, preprocess, fits)
    say_left_out(folder, len(files), problems)
    readable = [file for file in files if file.path not in problems]
    split = Split(
        tuple(map(printable, classes)),
        [file.path for file in readable],
        torch.tensor([file.label for file in readable], dtype=torch.int64),
        torch.from_numpy(images) if fits else None,
    )
    counts = torch.bincount(split.labels, minlength=len(classes))
    if lent and not readable:
        raise LabError(f"{folder} is too small to hold images out of it; add {data_root / 'val'}")
    if not lent and not counts.all():  # of train/, a class of one image has none to lend
        name = classes[int(counts.argmin())]
        raise LabError(f"{folder / name} holds no readable image; fill the class or remove it")
    return split


# ---------------------------------------------------------------- data sets that come as arrays

DIGITS = tuple("0123456789")
DIGITS_TEST_SHARE = 0.2  # of scikit-learn's digits, which come in one piece


def read_torchvision(
    name: str,
    folder: str,
    data_root: Path,
    mode: str,
    preprocess: Preprocess,
    val_share: float = VAL_SHARE,
) -> Split:
    """Read one of torchvision's data sets; val is held out of its training images.

    Args:
        name: of the data set's class: MNIST or CIFAR10.
        folder: that torchvision keeps it in, under `data_root`.

    Raises:
        LabError: files are missing or damaged.
    """
    from torchvision import datasets

    try:
        source = getattr(datasets, name)(data_root, train=mode != "test")
    except (OSError, RuntimeError, ValueError, TypeError, AssertionError, LookupError) as error:
        raise LabError(
            f"{data_root / folder} is incomplete or damaged; remove it to have it downloaded anew"
        ) from error
    images = torch.as_tensor(source.data)  # (N, H, W) or (N, H, W, 3)
    classes = DIGITS if images.dim() == 3 else tuple(source.classes)
    images = images.unsqueeze(3) if images.dim() == 3 else images
    split = Split(classes, [], torch.as_tensor(source.targets), images)
    return split if mode == "test" else hold_out(split, val_share)[mode == "val"]


def download(name: str, folder: str, instead: str, data_root: Path) -> None:
    """Have torchvision download a data set, unless its folder is there; whole or not at all.

    Args:
        name, folder: as in `read_torchvision`.
        instead: the `--dataset` that needs no connection.

    Raises:
        LabError: no connection, or `data_root` cannot be written.
    """
    from torchvision import datasets

    target = data_root / folder
    if target.is_dir():
        return
    say(f"No {name} in {data_root}: downloading it, once.")
    try:
        with unfinished(target) as incoming:
            getattr(datasets, name)(incoming, download=True)
            (incoming / folder).rename(target)
    except (OSError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise LabError(
            f"no {name} in {data_root}, and it could not be downloaded ({reason}); without a "
            f"connection, take --dataset {instead}, or put torchvision's files into {target}"
        ) from error


def read_digits(
    data_root: Path | None, mode: str, preprocess: Preprocess, val_share: float = VAL_SHARE
) -> Split:
    """Read scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998), at 28x28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (torch.from_numpy(digits.images) * (255 / 16)).round().byte()  # (1797, 8, 8), 0 to 16
    enlarge = Preprocess((28, 28), mean=(0.5,), std=(0.5,))
    images = enlarge.fit_batch(pixels.unsqueeze(3))
    split = Split(DIGITS, [], torch.from_numpy(digits.target).long(), images)
    split, test = hold_out(split, DIGITS_TEST_SHARE)
    return test if mode == "test" else hold_out(split, val_share)[mode == "val"]


# ---------------------------------------------------------------- data sets by name


@dataclass(frozen=True)
class Source:
    """A data set that the scripts know by name.

    Attributes:
        read: (data_root, mode, preprocess, val_share=VAL_SHARE) to a `Split`; the share of train
            is held out as val where the data set has none.
        augment: varies training images in [-1, 1], (N, C, H, W).
        prepare: makes what is missing under data_root; None where nothing can be made.
        mean, std: of each channel, in [0, 1].
    """

    read: Callable[..., Split]
    augment: Augmentation
    prepare: Callable[[Path], None] | None = None
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


SOURCES = {
    "signs": Source(read_split, augment_batch, draw_signs),
    "mnist": Source(
        partial(read_torchvision, "MNIST", "MNIST"),
        augment_digits,
        partial(download, "MNIST", "MNIST", "digits"),
        mean=(0.1307,),
        std=(0.3081,),
    ),
    # Mean and deviation of the 1,295 training images that `read_digits` returns.
    "digits": Source(read_digits, augment_digits, mean=(0.3056,), std=(0.3247,)),
    "cifar10": Source(
        partial(read_torchvision, "CIFAR10", "cifar-10-batches-py"),
        mirror_and_crop,
        partial(download, "CIFAR10", "cifar-10-batches-py", "signs"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),
    "folder": Source(read_split, mirror_and_crop),
}


def find_data(dataset: str, data_root: Path | None) -> Path | None:
    """Return the folder that a data set is read from: the one given, or its default.

    Raises:
        UsageError: the data set needs one that is not given, or has no use for it.
    """
    if dataset == "folder" and data_root is None:
        raise UsageError("--dataset folder needs --data_root, a folder with train/, val/, test/")
    if dataset == "digits":
        if data_root is not None:
            raise UsageError("--dataset digits comes with scikit-learn; leave out --data_root")
        return None
    return data_root or near(DATA_ROOT)


def find_folder(sources: Mapping[str, Any], dataset: str, data_root: Path | None) -> Path:
    """Return the folder of a field's data set: the one given, or its own.

    Args:
        sources: by name, each with a `folder`; None where it has to be told.

    Raises:
        UsageError: the data set needs a folder that is not given.
    """
    folder = sources[dataset].folder
    if data_root is None and folder is None:
        raise UsageError(f"--dataset {dataset} needs --data_root, the folder of the data set")
    return data_root or near(folder)


def modes_of(dataset: str, data_root: Path | None) -> tuple[str, ...]:
    """Return the splits there are: a folder may do without test/."""
    folders = SOURCES[dataset].read is read_split
    return MODES[:2] if folders and not os.path.isdir(data_root / "test") else MODES


# ---------------------------------------------------------------- the loader


class ImageDataset(Dataset):
    """Images of one split; asked for a batch at a time (`__getitems__`), it works on whole batches.

    Args:
        split: what a `Source` read.
        preprocess: from pixels to batches; what the split was read with.
        augment: applied to every batch, if any.
        device: where the images live and batches are made.
    """

    def __init__(
        self,
        split: Split,
        preprocess: Preprocess,
        augment: Augmentation | None = None,
        device: str | torch.device = "cpu",
    ):
        self.split, self.preprocess, self.augment = split, preprocess, augment
        self.classes = split.classes
        half = (0.5,) * len(preprocess.mean)
        self.centred = replace(preprocess, mean=half, std=half)  # pixels in [-1, 1]
        self.images = None if split.images is None else split.images.to(device)
        self.labels = split.labels.to(device)
        if self.images is None or self.images.shape[1:] == preprocess.shape:
            return
        if fits_in_memory(len(self), preprocess):
            chunks = self.images.split(256)  # resizing takes ten times the memory
            self.images = torch.cat([preprocess.fit_batch(chunk) for chunk in chunks])
        else:
            say(
                f"{len(self):,} images of {'x'.join(map(str, preprocess.size))} would take more "
                f"than {CACHE_BUDGET / 2**30:.1f} GiB of memory, so they are resized batch by batch"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """Return the images at `indices` at the network's size, uint8 (n, H, W, C)."""
        if self.images is None:
            read = [self.preprocess.fit(open_image(self.split.paths[index])) for index in indices]
            return torch.from_numpy(np.stack(read)).to(self.labels.device)
        pixels = self.images[torch.as_tensor(indices, device=self.images.device)]
        return (
            pixels
            if pixels.shape[1:] == self.preprocess.shape
            else self.preprocess.fit_batch(pixels)
        )

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        pixels = self.pixels(indices)
        if self.augment is None:
            images = self.preprocess.normalize(pixels)
        else:
            generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
            images = self.augment(self.centred.normalize(pixels), generator)
            if self.preprocess != self.centred:
                black, white = self.preprocess.bounds(images.device)
                images = torch.lerp(black, white, self.centred.denormalize(images))
        return images, self.labels[torch.as_tensor(indices, device=self.labels.device)]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.__getitems__([index])
        return images[0], int(labels[0])


def get_data_loader(
    data_root: str | Path,
    mode: str,
    image_size: int | tuple[int, int],
    batch_size: int,
    num_workers: int = 0,
    augment: bool = False,
    **options: Any,
) -> DataLoader:
    """Return a loader of `data_root/mode/class/*`.

    It yields float32 images in [-1, 1], (N, 3, H, W), and int64 labels, (N,); `len(loader)` is the
    number of batches, `len(loader.dataset)` that of images, `loader.dataset.classes` the class
    names. Only train is shuffled, and only train is augmented.

    Args:
        data_root: folder of the splits.
        mode: train, val or test.
        image_size: pixels, one number or (H, W).
        batch_size: images a batch, over all processes.
        num_workers: worker processes; 0 is fastest for images held in memory.
        augment: vary the training images (`augment_batch`).
        options: seed, rank, world_size and device of `make_loader`.

    Raises:
        LabError: the split is missing or empty, or its classes are not those of train/.
    """
    if mode not in MODES:
        raise LabError(f"unknown mode {mode!r}; it is one of {', '.join(MODES)}")
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    preprocess = Preprocess(size)
    split = read_split(Path(data_root), mode, preprocess, val_share=0)
    shuffle = mode == "train"
    vary = augment_batch if augment and shuffle else None
    return make_loader(split, preprocess, batch_size, num_workers, shuffle, vary, **options)


def make_loader(
    split: Split,
    preprocess: Preprocess,
    batch_size: int,
    num_workers: int = 0,
    shuffle: bool = False,
    augment: Augmentation | None = None,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: str | torch.device = "cpu",
) -> DataLoader:
    """Return a loader of a split, as normalised float32 images and int64 labels.

    Args:
        split: what a `Source` read with `preprocess`.
        batch_size, num_workers: as in `get_data_loader`.
        shuffle: draw the images in another order each epoch.
        augment: applied to every batch, if any.
        seed: of the shuffling and the augmentation.
        rank, world_size: this process's share of each batch is every `world_size`-th image.
        device: where batches are made, from images that live there, if they fit in memory.
    """
    on_disk = split.images is None
    dataset = ImageDataset(split, preprocess, augment, "cpu" if on_disk else device)
    workers = num_workers if on_disk or torch.device(device).type == "cpu" else 0
    return load_batches(
        dataset, batch_size, shuffle, workers, seed=seed, rank=rank, world_size=world_size
    )


def get_test_loader(
    state: dict[str, Any], data_root: Path | None, batch_size: int, device: torch.device
) -> DataLoader:
    """Return the test split that a checkpoint's network can be tried on.

    Args:
        state: the loaded checkpoint.
        data_root: folder of the data set; None for the one the network was trained on.

    Raises:
        LabError: no test split, or its classes are not the network's.
    """
    dataset = state.get("dataset", "signs")
    if dataset not in SOURCES:
        raise LabError(f"unknown data set {dataset!r}; there are {', '.join(SOURCES)}")
    if data_root is None and state.get("data_root") is not None:
        data_root = located(state["data_root"])
    data_root, source = find_data(dataset, data_root), SOURCES[dataset]
    if source.prepare is not None:
        source.prepare(data_root)
    preprocess = Preprocess(**state.get("preprocess", {}))  # the scaffold's say none: the default
    split = source.read(data_root, "test", preprocess)
    where, known = data_root / "test" if split.paths else dataset, state["configs"]["num_classes"]
    if "class_names" in state:
        check_classes(split.classes, state["class_names"], where, "the network")
    elif len(split.classes) != known:
        raise LabError(
            f"{where} has {len(split.classes)} classes, but the network tells {known} apart"
        )
    return make_loader(split, preprocess, batch_size, device=device)


def check_classes(
    found: Sequence[str], expected: Sequence[str], where: Path | str, whose: str
) -> None:
    """Raise a LabError that names the difference unless two lists of class names are the same."""
    if tuple(found) != tuple(expected):
        missing = sorted(set(expected) - set(found))
        extra = sorted(set(found) - set(expected))
        parts = [
            f"{word} {', '.join(names[:3])}" + (f" and {len(names) - 3} more" * (len(names) > 3))
            for word, names in (("lacks", missing), ("adds", extra))
            if names
        ]
        raise LabError(f"{where} has other classes than {whose}: it {' and '.join(parts)}")
