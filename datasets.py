"""Every source of images, and the one way from a folder of them to a loader.

    python datasets.py gtsrb                               # published data as folders of images:
    python datasets.py kaggle --kind dogs --root FOLDER    # see layouts.py

    loader = get_data_loader("data", "train", 32, batch_size=32, augment=True)

Images are decoded once into one uint8 array, which is kept between runs; all later work (gather,
augment, normalise) is done on whole batches.
"""

import hashlib
import math
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from console import DATA_ROOT, LabError, Parser, progress, run, say
from images import Preprocess, open_image

MODES = ("train", "val", "test")
CACHE_FOLDER = Path(__file__).parent / "data" / ".cache"
CACHE_BUDGET = 2 * 2**30  # bytes of decoded images that may be held in memory, a split
CACHE_VERSION = "2"  # raise when `open_image` or `Preprocess.fit` changes what it returns


# ---------------------------------------------------------------- the built-in data set


def prepare_data(data_root: Path) -> None:
    """Draw the built-in data set if `data_root` is where it belongs and empty.

    Raises:
        LabError: `data_root` holds some of the splits, but no train/, or cannot be written.
    """
    if data_root != DATA_ROOT or (data_root / "train").is_dir():
        return
    present = [mode for mode in MODES if (data_root / mode).exists()]
    if present:
        raise LabError(f"{data_root} holds {' and '.join(present)} but no train/")
    import signs

    total = len(signs.CLASSES) * sum(signs.SPLITS.values())
    say(f"No data in {data_root}: drawing the built-in one, {total:,} traffic signs, once.")
    try:
        with progress(total=total, label="drawing") as bar:
            signs.draw_dataset(data_root, progress=bar.update)
    except OSError as error:
        raise LabError(f"cannot draw into {data_root}: {error.strerror or error}") from error


# ---------------------------------------------------------------- files to uint8 arrays


@dataclass(frozen=True)
class Split:
    """One split of an image folder, as read.

    Attributes:
        classes: folder names, sorted; a label is an index into them.
        paths: the readable files, in the order of classes and names.
        labels: int64 (len(paths),).
        images: uint8 (len(paths), H, W, 3); None where they would not fit `CACHE_BUDGET`.
    """

    classes: tuple[str, ...]
    paths: list[Path]
    labels: Tensor
    images: Tensor | None


def read_split(data_root: Path, mode: str, preprocess: Preprocess) -> Split:
    """Read `data_root/mode/class/*`, from the cache if no file has changed since.

    Files that are no readable images are named and left out.

    Raises:
        LabError: no such split, no classes in it, or a class without a readable image.
    """
    folder = data_root / mode
    if not data_root.is_dir():
        raise LabError(
            f"no data folder {data_root}; --data_root takes one with train/, val/, test/"
        )
    if not folder.is_dir():
        raise LabError(f"{data_root} has no {mode}/; it needs a folder of images a class there")
    classes = class_folders(folder)
    if not classes:
        raise LabError(f"{folder} has no class folders; it needs a folder of images a class")
    files, labels, digest = [], [], hashlib.sha256(repr((CACHE_VERSION, preprocess)).encode())
    for label, name in enumerate(classes):
        for entry in sorted(os.scandir(folder / name), key=lambda entry: entry.name):
            if entry.is_file() and not entry.name.startswith("."):
                files.append(folder / name / entry.name)
                labels.append(label)
                stat = entry.stat()
                digest.update(f"{name}/{entry.name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())

    fits = len(files) * math.prod(preprocess.shape) <= CACHE_BUDGET
    if not fits:
        say(
            f"{folder}: {len(files):,} images would take more than {CACHE_BUDGET / 2**30:.1f} GiB "
            "of memory, so they are read from disk batch by batch (see --num_workers)"
        )
    digest.update(str(fits).encode())
    images, problems = _decode(folder, files, preprocess, digest.hexdigest(), fits)

    readable = [index for index, problem in enumerate(problems) if not problem]
    if len(readable) < len(files):
        bad = [
            f"{p.relative_to(folder)} ({why})"
            for p, why in zip(files, problems, strict=True)
            if why
        ]
        shown = ", ".join(bad[:5]) + (f" and {len(bad) - 5} more" if len(bad) > 5 else "")
        say(f"{folder}: left out {len(bad)} of {len(files):,} files: {shown}")
    split = Split(
        classes,
        [files[index] for index in readable],
        torch.tensor([labels[index] for index in readable], dtype=torch.int64),
        torch.from_numpy(images) if fits else None,
    )
    counts = torch.bincount(split.labels, minlength=len(classes))
    if not counts.all():
        name = classes[int(counts.argmin())]
        raise LabError(f"{folder / name} holds no readable image; fill the class or remove it")
    return split


def class_folders(folder: Path) -> tuple[str, ...]:
    """Return the names of the class folders in a split's folder, sorted."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))


def _decode(
    folder: Path, files: list[Path], preprocess: Preprocess, key: str, keep: bool
) -> tuple[np.ndarray, list[str]]:
    """Return the readable images, (n, H, W, 3), and a problem a file ("" where there is none)."""
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    size = "x".join(map(str, preprocess.shape))
    cache = CACHE_FOLDER / f"{place}_{size}.npz"
    try:
        with np.load(cache, allow_pickle=False) as cached:
            if cached["key"] == key:
                return cached["images"], cached["problems"].tolist()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # absent, of another layout or damaged: made anew below

    def decode(path: Path) -> np.ndarray | str:
        try:
            return preprocess.fit(open_image(path))
        except OSError as error:
            return str(error) or type(error).__name__

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
        folder=np.array(str(folder.resolve())),
        key=np.array(key),
        images=images,
        problems=np.array(problems, dtype=str),
    )
    return images, problems


def _save_cache(cache: Path, **arrays: np.ndarray) -> None:
    partial = cache.with_suffix(f".{os.getpid()}.tmp")
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        for other in cache.parent.glob("*.npz"):
            if not _is_current(other):
                other.unlink(missing_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(cache)
    except OSError as error:  # a read-only clone or a full disk: the next run reads the files again
        partial.unlink(missing_ok=True)
        say(f"decoded images are not kept for the next run: {error.strerror or error}")


def _is_current(cache: Path) -> bool:
    """True unless the folder that a cache was made from is gone."""
    try:
        with np.load(cache, allow_pickle=False) as cached:
            return Path(str(cached["folder"])).is_dir()
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


# ---------------------------------------------------------------- augmentation

# Ranges of the augmentation, each uniform and drawn per image; the README says why each.
ROTATION = math.radians(10)
SHIFT = 0.06  # of the image's width
SCALE = 0.12
SHEAR = 0.1
EXPOSURE = 0.5  # of the natural logarithm: from 0.6 to 1.65 times the light
CONTRAST = 0.3
SATURATION = 0.5
BLUR_SHARE = 0.1  # share of images blurred


def augment_batch(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move, light and blur each image of a batch differently; never mirror: left is not right.

    Args:
        images: (N, 3, H, W) in [-1, 1].
        generator: of the CPU; the parameters are drawn there, whatever device the images are on.

    Returns:
        A new batch of the same shape, range and device.
    """
    count, device = len(images), images.device

    def draw(extent: float) -> Tensor:
        """Uniform in [-extent, extent], (N,)."""
        return (torch.rand(count, generator=generator) * 2 - 1) * extent

    angle, shear = draw(ROTATION), draw(SHEAR)
    zoom_x, zoom_y = 1 + draw(SCALE), 1 + draw(SCALE)
    # theta takes output positions to input positions (as in the STN): rotation, shear, scale.
    theta = torch.stack(
        [
            torch.stack([zoom_x * angle.cos(), zoom_x * (shear - angle.sin()), 2 * draw(SHIFT)], 1),
            torch.stack([zoom_y * angle.sin(), zoom_y * angle.cos(), 2 * draw(SHIFT)], 1),
        ],
        1,
    ).to(device)  # (N, 2, 3)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    # Repeat the border where the sign has moved away from it: black wedges would be a cue.
    images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def per_image(values: Tensor) -> Tensor:
        return values.to(device).view(-1, 1, 1, 1)

    # Colour in one affine step: saturation mixes with the grey image, contrast stretches about
    # the image's mean, exposure scales the light, i.e. (x + 1).
    saturation = per_image(1 + draw(SATURATION))
    contrast = per_image(1 + draw(CONTRAST))
    exposure = per_image(draw(EXPOSURE).exp())
    grey = images.mean(1, keepdim=True)
    mean = grey.mean((2, 3), keepdim=True)
    images = grey + saturation * (images - grey)
    images = (mean + contrast * (images - mean) + 1) * exposure - 1

    # A blend with the 3x3 mean is a blur of the blend's strength.
    blur = per_image(torch.rand(count, generator=generator) / BLUR_SHARE)
    blur = torch.where(blur < 1, blur, 0)
    images = torch.lerp(images, F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), blur)
    return images.clamp_(-1, 1)


# ---------------------------------------------------------------- the loader


class BatchIndices(list):
    """The indices of one batch, with the seed of its augmentation."""

    seed = 0


class BatchSampler(Sampler[BatchIndices]):
    """The batches of an epoch, for one of `world_size` processes, reproducible from the seed.

    Every epoch shuffles differently; `epoch` is the one that the next iteration draws (it counts
    on by itself) and `start` the number of its first batches to leave out, so that a resumed run
    draws what the interrupted one would have.
    """

    def __init__(
        self, count: int, batch_size: int, shuffle: bool, seed: int, rank: int, world_size: int
    ):
        self.shuffle, self.seed, self.rank, self.world_size = shuffle, seed, rank, world_size
        self.epoch, self.start = 1, 0
        self.bounds = [*range(0, count, batch_size), count]
        # Batch norm cannot train on one image: too small a last batch borrows from the one before
        # it, or joins it where that has none to lend.
        smallest = 2 * world_size
        if shuffle and len(self.bounds) > 2 and count - self.bounds[-2] < smallest:
            self.bounds[-2] = count - smallest
            if self.bounds[-2] - self.bounds[-3] < smallest:
                del self.bounds[-2]

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[BatchIndices]:
        epoch, start = self.epoch, self.start
        self.epoch, self.start = epoch + 1, 0
        count = self.bounds[-1]
        order = np.arange(count)
        if self.shuffle:
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        for first, last in list(zip(self.bounds, self.bounds[1:], strict=False))[start:]:
            batch = BatchIndices(order[first + self.rank : last : self.world_size].tolist())
            if batch:  # the last one may be too small for a share for every process
                seeds = np.random.SeedSequence([self.seed, epoch, batch[0]])
                batch.seed = int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1))
                yield batch


class ImageFolderDataset(Dataset):
    """Images of one split; asked for a batch at a time (`__getitems__`), it works on whole batches.

    Args:
        split: what `read_split` returned.
        preprocess: from pixels to batches; what the split was read with.
        augment: apply `augment_batch`.
        device: where the images live and batches are made.
    """

    def __init__(
        self, split: Split, preprocess: Preprocess, augment: bool = False, device: str = "cpu"
    ):
        self.split, self.preprocess, self.augment = split, preprocess, augment
        self.classes = split.classes
        self.images = None if split.images is None else split.images.to(device)
        self.labels = split.labels.to(device)

    def __len__(self) -> int:
        return len(self.split.paths)

    def pixels(self, indices: Sequence[int]) -> Tensor:
        """Return the stored images at `indices` as uint8 (n, H, W, 3)."""
        if self.images is not None:
            return self.images[torch.as_tensor(indices, device=self.images.device)]
        pixels = [self.preprocess.fit(open_image(self.split.paths[index])) for index in indices]
        return torch.from_numpy(np.stack(pixels)).to(self.labels.device)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        images = self.preprocess.normalize(self.pixels(indices))
        if self.augment:
            generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
            images = augment_batch(images, generator)
        return images, self.labels[torch.as_tensor(indices, device=self.labels.device)]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self.__getitems__([index])
        return images[0], int(labels[0])


def get_data_loader(
    data_root: str | Path,
    mode: str,
    image_size: int | tuple[int, int] | Preprocess,
    batch_size: int,
    num_workers: int = 0,
    augment: bool = False,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
    device: str | torch.device = "cpu",
) -> DataLoader:
    """Return a loader of `data_root/mode/class/*`.

    It yields float32 images in [-1, 1], (N, 3, H, W), and int64 labels, (N,); `len(loader)` is the
    number of batches, `len(loader.dataset)` that of images, `loader.dataset.classes` the class
    names. Only train is shuffled, and only train is augmented.

    Args:
        data_root: folder of the splits.
        mode: train, val or test.
        image_size: pixels, one number or (H, W); or all of the preprocessing.
        batch_size: images a batch, over all processes.
        num_workers: worker processes; 0 is fastest for images held in memory.
        augment: vary the training images (`augment_batch`).
        seed: of the shuffling and the augmentation.
        rank, world_size: this process's share of each batch is every `world_size`-th image.
        device: where batches are made, from images that live there, if they fit in memory.

    Raises:
        LabError: the split is missing or empty, or its classes are not those of train/.
    """
    if mode not in MODES:
        raise LabError(f"unknown mode {mode!r}; it is one of {', '.join(MODES)}")
    if isinstance(image_size, int):
        image_size = (image_size, image_size)
    if not isinstance(image_size, Preprocess):
        image_size = Preprocess(tuple(image_size))
    preprocess = image_size
    data_root = Path(data_root)
    split = read_split(data_root, mode, preprocess)
    if mode != "train" and (data_root / "train").is_dir():
        check_classes(split.classes, class_folders(data_root / "train"), data_root / mode, "train/")
    on_disk = split.images is None
    dataset = ImageFolderDataset(
        split, preprocess, augment and mode == "train", "cpu" if on_disk else str(device)
    )
    sampler = BatchSampler(len(dataset), batch_size, mode == "train", seed, rank, world_size)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=num_workers if on_disk or torch.device(device).type == "cpu" else 0,
        collate_fn=_as_is,
        generator=torch.Generator(),  # else each iteration would draw from dropout's generator
    )


def get_test_loader(
    state: dict[str, Any], data_root: Path | None, batch_size: int, device: torch.device
) -> DataLoader:
    """Return the test split that a checkpoint's network can be tried on.

    Args:
        state: the loaded checkpoint.
        data_root: folder of the splits; None for the one the network was trained on.

    Raises:
        LabError: no test split, or its classes are not the network's.
    """
    data_root = data_root or Path(state.get("data_root", DATA_ROOT))
    prepare_data(data_root)
    preprocess = Preprocess(**state.get("preprocess", {}))  # the scaffold's say none: the default
    loader = get_data_loader(data_root, "test", preprocess, batch_size, device=device)
    classes, known = loader.dataset.classes, state["configs"]["num_classes"]
    if "class_names" in state:
        check_classes(classes, state["class_names"], data_root / "test", "the network")
    elif len(classes) != known:
        raise LabError(
            f"{data_root / 'test'} has {len(classes)} classes, but the network tells {known} apart"
        )
    return loader


def _as_is(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return batch


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


# ---------------------------------------------------------------- python datasets.py


def main() -> None:
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

    from layouts import prepare_gtsrb, prepare_kaggle

    if args.name == "gtsrb":
        target = prepare_gtsrb(args.root, args.classes, args.source)
    else:
        target = args.target or args.root / "train_val_test"
        prepare_kaggle(args.root, args.kind, target)
    flags = "--bn --stn --augment" if args.name == "gtsrb" else "--bn"
    say(f"Train on it: python train.py {flags} --data_root {target}")


if __name__ == "__main__":
    run(main)
