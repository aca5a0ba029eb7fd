"""Every source of images, and the one way from a folder of them to a loader.

    python datasets.py gtsrb                               # published data as folders of images:
    python datasets.py kaggle --kind dogs --root FOLDER    # see published/
    python datasets.py street                              # drawn streets, with boxes and labels
    python datasets.py captions                            # drawn signs, with sentences

    loader = get_data_loader("data", "train", 32, batch_size=32, augment=True)
    split = SOURCES["mnist"].read(Path("data"), "train", preprocess)
    loader = make_loader(split, preprocess, batch_size=32, shuffle=True)

Images are decoded once into one uint8 array, which is kept between runs; all later work (gather,
augment, normalise) is done on whole batches.
"""

# ruff: noqa: E402 - the flags are read before what follows is imported
if __name__ == "__main__":  # so that --help and a wrong flag are answered at once, without torch
    from published import commands

    flags = commands.make_parser().parse_args()

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lab.augmentation import Augmentation, augment_batch, augment_digits, mirror_and_crop
from lab.batches import load_batches
from lab.console import LabError, UsageError, run, say
from lab.decoding import budget, fits_in_memory
from lab.downloads import download, read_downloaded
from lab.folders import DATA_ROOT, near, split_folder
from lab.holdout import held_out
from lab.image_folder import MODES, read_images
from lab.images import Preprocess, open_image
from lab.runtime import home, upload
from lab.settings import TrainSettings
from world.missing import DRAWN, draw_missing

VAL_SHARE = TrainSettings.val_share  # of the training images, where a data set has no val
DIGITS = tuple("0123456789")
DIGITS_TEST_SHARE = 0.2  # of scikit-learn's digits, which come in one piece


@dataclass(frozen=True)
class Split:
    """One split of a data set, as read.

    A folder's images are at the network's size, or None where they would not fit in memory; an
    array's are at its own.
    """

    classes: tuple[str, ...]  # names, of a folder those of its folders; a label is an index
    paths: list[Path]  # the readable files, in the order of classes and names; none of an array
    labels: Tensor  # int64 (N,)
    images: Tensor | None  # uint8 (N, H, W, C)


def hold_out(split: Split, share: float) -> tuple[Split, Split]:
    """Part an array, in its order, into what remains and a stratified share of it."""
    count = len(split.labels)
    held = torch.from_numpy(held_out(split.labels.tolist(), range(count), share))
    chosen = (held == 0, held == 1)
    return tuple(replace(split, labels=split.labels[c], images=split.images[c]) for c in chosen)


def read_split(
    data_root: Path, mode: str, preprocess: Preprocess, val_share: float = VAL_SHARE
) -> Split:
    """Read `data_root/mode/class/*`; arguments and errors as of `read_images`."""
    classes, paths, labels, images = read_images(data_root, mode, preprocess, val_share)
    pixels = None if images is None else torch.from_numpy(images)
    return Split(classes, paths, torch.from_numpy(labels), pixels)


def read_torchvision(
    name: str, folder: str, data_root: Path, mode: str, preprocess: Preprocess, val_share=VAL_SHARE
) -> Split:
    """Read MNIST or CIFAR10, as `read_downloaded`; val is held out of the training images."""
    source = read_downloaded(name, folder, data_root, train=mode != "test")
    images = torch.as_tensor(source.data)  # (N, H, W) or (N, H, W, 3)
    classes = DIGITS if images.dim() == 3 else tuple(source.classes)
    images = images.unsqueeze(3) if images.dim() == 3 else images
    split = Split(classes, [], torch.as_tensor(source.targets), images)
    return split if mode == "test" else hold_out(split, val_share)[mode == "val"]


def read_digits(
    data_root: Path | None, mode: str, preprocess: Preprocess, val_share: float = VAL_SHARE
) -> Split:
    """Read scikit-learn's 1,797 handwritten digits (Alpaydin and Kaynak 1998), at 28x28."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (torch.from_numpy(digits.images) * (255 / 16)).round().byte()  # (1797, 8, 8), 0 to 16
    images = Preprocess((28, 28), mean=(0.5,), std=(0.5,)).fit_batch(pixels.unsqueeze(3))
    split = Split(DIGITS, [], torch.from_numpy(digits.target).long(), images)
    split, test = hold_out(split, DIGITS_TEST_SHARE)
    return test if mode == "test" else hold_out(split, val_share)[mode == "val"]


@dataclass(frozen=True)
class Source:
    """A data set that the scripts know by name.

    It is read by `read(data_root, mode, preprocess, val_share=VAL_SHARE)`; the share of train is
    held out as val where there is none.
    """

    read: Callable[..., Split]
    augment: Augmentation  # of training images in [-1, 1], (N, C, H, W)
    prepare: Callable[[Path], None] | None = None  # makes what is missing under data_root
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # of each channel, in [0, 1]
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    folder: str = ""  # of DATA_ROOT, where it is unless told otherwise


SOURCES = {
    "signs": Source(read_split, augment_batch, partial(draw_missing, DRAWN["signs"])),
    "signs43": Source(
        read_split, augment_batch, partial(draw_missing, DRAWN["signs43"]), folder="signs43"
    ),
    "mnist": Source(
        partial(read_torchvision, "MNIST", "MNIST"),
        augment_digits,
        partial(download, "MNIST", "MNIST", "digits"),
        mean=(0.1307,),
        std=(0.3081,),
    ),  # fmt: skip
    # Mean and deviation of the 1,295 training images that `read_digits` returns.
    "digits": Source(read_digits, augment_digits, mean=(0.3056,), std=(0.3247,)),
    "cifar10": Source(
        partial(read_torchvision, "CIFAR10", "cifar-10-batches-py"),
        mirror_and_crop,
        partial(download, "CIFAR10", "cifar-10-batches-py", "signs"),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
    ),  # fmt: skip
    "folder": Source(read_split, mirror_and_crop),
}


def find_data(dataset: str, data_root: Path | None) -> Path | None:
    """Return the folder that a data set is read from: the one given, or its default.

    Raises:
        UsageError: the data set needs one that is not given, or has no use for it.
    """
    if dataset == "folder" and data_root is None:
        raise UsageError("--dataset folder needs --data_root, a folder with train/, val/, test/")
    if dataset == "digits" and data_root is not None:
        raise UsageError("--dataset digits comes with scikit-learn; leave out --data_root")
    return None if dataset == "digits" else data_root or near(DATA_ROOT / SOURCES[dataset].folder)


def modes_of(dataset: str, data_root: Path | None) -> tuple[str, ...]:
    """Return the splits there are: a folder may do without test/."""
    folders = SOURCES[dataset].read is read_split
    return MODES[:2] if folders and split_folder(data_root, "test") is None else MODES


class ImageDataset(Dataset):
    """Images of one split; asked for a batch at a time (`__getitems__`), it works on whole batches.

    Args:
        split: what a `Source` read with `preprocess`.
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
        self.split, self.classes = split, split.classes
        self.preprocess, self.augment = preprocess, augment
        half = (0.5,) * len(preprocess.mean)
        self.centred = replace(preprocess, mean=half, std=half)  # pixels in [-1, 1]
        self.images = None if split.images is None else split.images.to(device)
        self.labels = split.labels.to(device)
        if self.images is None or self.images.shape[1:] == preprocess.shape:
            return
        if fits_in_memory(len(self), preprocess.shape):
            chunks = self.images.split(256)  # resizing takes ten times the memory
            self.images = torch.cat([preprocess.fit_batch(chunk) for chunk in chunks])
        else:
            count = f"{len(self):,} images of {'x'.join(map(str, preprocess.size))}"
            taken = f"would take more than {budget()} of memory"
            say(f"{count} {taken}, so they are resized batch by batch")

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Return the images at `indices` at the network's size, uint8 (n, H, W, C)."""
        if self.images is None:
            read = [self.preprocess.fit(open_image(self.split.paths[index])) for index in indices]
            return upload(torch.from_numpy(np.stack(read)), self.labels.device)
        pixels = self.images[torch.as_tensor(indices)]
        fits = pixels.shape[1:] == self.preprocess.shape
        return pixels if fits else self.preprocess.fit_batch(pixels)

    def __getitems__(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        chosen = upload(torch.as_tensor(indices), self.labels.device)
        pixels = self.pixels(chosen)
        if self.augment is None:
            images = self.preprocess.normalize(pixels)
        else:
            generator = torch.Generator().manual_seed(getattr(indices, "seed", 0))
            images = self.augment(self.centred.normalize(pixels), generator)
            if self.preprocess != self.centred:
                black, white = self.preprocess.bounds(images.device)
                images = torch.lerp(black, white, self.centred.denormalize(images))
        return images, self.labels[chosen]

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
    size = (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
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
    device: str | torch.device = "cpu",
    **options: int,
) -> DataLoader:
    """Return a loader of a split, as normalised float32 images and int64 labels.

    Arguments as of `ImageDataset` and `load_batches`, which gets the options; images that do not
    fit in memory, or a GPU's, live on the CPU, whatever the device.
    """
    on_disk = split.images is None
    place = torch.device("cpu") if on_disk else home(device, split.images.nbytes)
    dataset = ImageDataset(split, preprocess, augment, place)
    workers = num_workers if place.type == "cpu" else 0
    return load_batches(dataset, batch_size, shuffle, workers, **options)


if __name__ == "__main__":
    run(partial(commands.main, flags))
