"""Data sets drawn by several processes: whole or not there, the same bytes with any number."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy  # noqa: F401  (limits hold for the libraries that are loaded by then)
from threadpoolctl import threadpool_limits

from lab.folders import unfinished


class Chunk(NamedTuple):
    """Pictures [start, stop) of one class in one split: the unit of work of a process."""

    folder: Path  # of the split
    seed: int
    split: int
    label: int
    start: int
    stop: int


@dataclass(frozen=True)
class Drawing:
    """A data set that is drawn in chunks into root/{split}/...; call it to do so.

    Attributes:
        draw: a function of a module that writes a chunk into its folder and returns an entry a
            picture; each picture has a stream of its own, so that the workers' number does not
            matter.
        splits: pictures in each split, of each class where there are any.
        chunk: pictures of a chunk, at the most.
        classes: names of folders in each split's; none for a data set without.
        begin: gets a split's folder and the number of its pictures before they are drawn.
        end: gets the folder and the entries of all its pictures after.
    """

    draw: Callable[[Chunk], Sequence]
    splits: Mapping[str, int]
    chunk: int
    classes: Sequence[str] = ()
    begin: Callable[[Path, int], Any] = lambda folder, count: None
    end: Callable[[Path, list], Any] = lambda folder, drawn: None

    @property
    def counts(self) -> dict[str, int]:
        """Pictures in each split, of all classes."""
        return {split: count * max(1, len(self.classes)) for split, count in self.splits.items()}

    def __call__(
        self,
        root: Path,
        seed: int = 0,
        splits: Mapping[str, int] | None = None,
        workers: int | None = None,
        progress: Callable[[int], Any] = lambda done: None,
    ) -> None:
        """Draw the data set; the same seed gives the same bytes.

        The splits appear at the end and train last: a train folder means a complete data set,
        after a kill as well. Existing splits are never touched: FileExistsError.

        splits: in place of the data set's own. workers: processes, one a core if None.
        progress: called with the number of pictures finished since its last call.
        """
        root, splits = Path(root), self.splits if splits is None else splits
        in_order = sorted(splits, key="train".__eq__)
        for split in in_order:
            if (root / split).exists():
                raise FileExistsError(f"{root / split} exists; remove it to draw it again")
        with unfinished(root / "drawing") as folder:
            drawn: dict[Path, list] = {folder / split: [] for split in splits}
            for place, count in zip(drawn, splits.values(), strict=True):
                for path in (place, *map(place.joinpath, self.classes)):
                    path.mkdir(parents=True)
                self.begin(place, count)
            chunks = [
                Chunk(place, seed, number, label, start, min(start + self.chunk, count))
                for number, (place, count) in enumerate(zip(drawn, splits.values(), strict=True))
                for label in range(max(1, len(self.classes)))
                for start in range(0, count, self.chunk)
            ]
            for chunk, entries in zip(chunks, map_chunks(self.draw, chunks, workers), strict=True):
                drawn[chunk.folder] += entries
                progress(len(entries))
            for place, entries in drawn.items():
                self.end(place, entries)
            for split in in_order:
                (folder / split).rename(root / split)


def map_chunks(
    draw: Callable[[Chunk], Sequence], chunks: Sequence[Chunk], workers: int | None
) -> Iterator[Sequence]:
    """What `draw` returns for each chunk, in their order; one process a core if workers is None."""
    workers = workers or os.cpu_count() or 1
    if workers == 1:
        yield from map(draw, chunks)
        return
    # 'spawn' behaves the same on every system and beside the threads of torch.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=begin_work)
    try:
        yield from pool.map(draw, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def begin_work() -> None:
    """Makes a worker end with its parent, for whom it would wait for ever, and leave room."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    # Threads of numpy's matrix products, as many a worker as there are cores, would wait for each
    # other in a loop and cost several times what they bring.
    threadpool_limits(1)
