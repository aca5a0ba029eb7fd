"""An epoch of `mnist_cnn` on MNIST's files: train.py and the plain loop, images a second.

The pictures in the files are scikit-learn's digits, over and over: nothing is downloaded.
"""

from collections.abc import Hashable
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader

from datasets import SOURCES, make_loader
from lab.images import Preprocess
from lab.runtime import Runtime
from networks import MnistCNN
from speed import Figures, Turn, pair_table
from speed.training import own_turns, plain_turns

BATCH_SIZE = 64
IMAGES = {"train": 8000, "t10k": 10}  # in each of MNIST's pairs of files
OWN, PLAIN = "(b) train.py", "(c) plain loop"


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the two."""
    write_files(folder)
    return {
        OWN: own_turns(network(), own_loader(folder, runtime), runtime),
        PLAIN: plain_turns(network(), plain_loader(folder), runtime),
    }


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of images/s, and the ratio."""
    return pair_table(f"MNIST, batch {BATCH_SIZE}", figures, OWN, PLAIN)


def network() -> MnistCNN:
    """Return the network under test; the same weights each time."""
    torch.manual_seed(0)
    return MnistCNN(1, 10)


def write_files(folder: Path) -> None:
    """Write pictures in MNIST's files, as torchvision lays them out (LeCun et al. 1998)."""
    split = SOURCES["digits"].read(None, "train", None)
    folder = folder / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, count in IMAGES.items():
        for kind, values in (
            ("images-idx3", split.images.squeeze(3).numpy()),
            ("labels-idx1", split.labels.numpy().astype(np.uint8)),
        ):
            values = np.resize(values, (count, *values.shape[1:]))  # over and over
            header = np.array([0x800 + values.ndim, *values.shape], ">i4")
            (folder / f"{name}-{kind}-ubyte").write_bytes(header.tobytes() + values.tobytes())


def own_loader(folder: Path, runtime: Runtime) -> DataLoader:
    """Return the loader of `train.py --dataset mnist`."""
    source = SOURCES["mnist"]
    preprocess = Preprocess((28, 28), source.mean, source.std)
    split = source.read(folder, "train", preprocess)
    return make_loader(split, preprocess, BATCH_SIZE, shuffle=True, device=runtime.device)


def plain_loader(folder: Path) -> DataLoader:
    """Return torchvision's MNIST, an image at a time, by two worker processes."""
    from torchvision import transforms
    from torchvision.datasets import MNIST

    steps = [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    dataset = MNIST(folder, transform=transforms.Compose(steps))
    return DataLoader(dataset, BATCH_SIZE, shuffle=True, num_workers=2)
