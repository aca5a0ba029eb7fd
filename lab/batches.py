"""Which images make up each batch of an epoch, for every process, reproducibly from a seed.

A data set is asked for whole batches: `__getitems__(BatchIndices)` returns one as it goes to the
loop.
"""

import os
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lab.console import LabError


class BatchIndices(list):
    """The indices of one batch, with its epoch, from 1, and the seed of its augmentation."""

    epoch, seed = 1, 0


class BatchSampler(Sampler[BatchIndices]):
    """The batches of an epoch, for one of `world_size` processes, reproducible from the seed.

    Every epoch shuffles differently; `epoch` is the one that the next iteration draws (it counts
    on by itself) and `start` the number of its images, over all processes, that an interrupted
    run has done already: with the same batch size, what remains is what it would have drawn.

    Args:
        count: images in all.
        batch_size: images a batch, over all processes.
    """

    def __init__(
        self, count: int, batch_size: int, shuffle: bool, seed: int, rank: int, world_size: int
    ):
        self.count, self.batch_size, self.shuffle, self.seed = count, batch_size, shuffle, seed
        self.rank, self.world_size = rank, world_size
        self.epoch, self.start = 1, 0

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch."""
        return self.batches_left(0)

    def batches_left(self, start: int) -> int:
        """Return the number of batches that remain of an epoch after its first `start` images."""
        return len(self._bounds(start)) - 1

    def __iter__(self) -> Iterator[BatchIndices]:
        epoch, bounds = self.epoch, self._bounds(self.start)
        self.epoch, self.start = epoch + 1, 0
        order = np.arange(self.count)
        if self.shuffle:
            np.random.default_rng([self.seed, epoch]).shuffle(order)
        for first, last in pairwise(bounds):
            batch = BatchIndices(order[first + self.rank : last : self.world_size].tolist())
            if batch:  # the last one may be too small for a share for every process
                seeds = np.random.SeedSequence([self.seed, epoch, batch[0]])
                batch.seed = int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1))
                batch.epoch = epoch
                yield batch

    def _bounds(self, start: int) -> list[int]:
        """Return where in the epoch's order each batch from `start` on begins, and the end.

        Batch norm cannot train on one image a process: too small a last batch of training borrows
        from the one before it, or joins it where that has none to lend.
        """
        smallest = 2 * self.world_size if self.shuffle else 1
        if 0 < self.count - start < min(smallest, self.batch_size):
            # Fewer processes began this epoch: a few of the images they have done come again.
            start = max(0, self.count - smallest)
        bounds = [*range(start, self.count, self.batch_size), self.count]
        if len(bounds) > 2 and self.count - bounds[-2] < smallest:
            bounds[-2] = self.count - smallest
            if bounds[-2] - bounds[-3] < smallest:
                del bounds[-2]
        return bounds


def load_batches(
    dataset: Dataset,
    batch_size: int,
    shuffle: bool = False,
    num_workers: int = 0,
    *,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> DataLoader:
    """Return a loader of a data set that makes whole batches.

    Args:
        shuffle: draw the images in another order each epoch.
        num_workers: processes that make batches; 0 for this one.
        seed: of the order, and of each batch's augmentation.
        batch_size, rank, world_size: images a batch, over all processes, of which this one's share
            is every `world_size`-th.
    """
    return DataLoader(
        dataset,
        batch_sampler=BatchSampler(len(dataset), batch_size, shuffle, seed, rank, world_size),
        num_workers=num_workers,
        collate_fn=_as_is,
        generator=torch.Generator(),  # else each iteration would draw from dropout's generator
    )


def _as_is(batch: Any) -> Any:
    return batch


def fingerprint(dataset: Dataset) -> list[int]:
    """Return the number of inputs, and one that other files, labels or another order change."""
    split, number = getattr(dataset, "split", dataset), 0
    for name in ("paths", "names", "labels", "boxes", "pixels"):
        held = getattr(split, name, ())
        for value in held if isinstance(held, list | tuple) else [held.cpu().numpy()]:
            if isinstance(value, Path):  # wherever the data set lies
                value = "/".join(value.parts[-2:])
            content = os.fsencode(value) if isinstance(value, str) else np.ascontiguousarray(value)
            number = zlib.crc32(content, number)
    return [len(dataset), number]


def check_count(count: int, world_size: int, normalises: bool) -> None:
    """Raise a LabError unless there are training images for every process, two for batch norm."""
    needed = world_size * (2 if normalises else 1)
    if count < needed:
        few = f"{count} training image{' is' if count == 1 else 's are'} too few"
        why = "batch norm needs 2 a process" if normalises else "each process needs one"
        raise LabError(f"{few}: {why}, so at least {needed}")
