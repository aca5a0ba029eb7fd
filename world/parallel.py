"""Data sets drawn by several processes: whole or not there, the same bytes with any number."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy  # noqa: F401  (limits hold for the libraries that are loaded by then)
from threadpoolctl import threadpool_limits

from lab.folders import unfinished

Chunk = TypeVar("Chunk")
Result = TypeVar("Result")


def map_chunks(
    draw: Callable[[Chunk], Result], chunks: Sequence[Chunk], workers: int | None
) -> Iterator[Result]:
    """What `draw` returns for each chunk, in their order; one process a core if workers is None.

    draw: a function of a module. What it draws depends on the chunk alone.
    """
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


@contextmanager
def build(root: Path, folders: Sequence[str]) -> Iterator[Path]:
    """Gives an empty folder in which to make `folders`; they move to `root` in their order.

    They appear when the block ends without an error, so that the last one means a complete data
    set, after a kill as well. Existing ones are never touched: FileExistsError.
    """
    for name in folders:
        if (root / name).exists():
            raise FileExistsError(f"{root / name} exists; remove it to draw it again")
    with unfinished(root / "drawing") as drawing:
        drawing.mkdir(parents=True)
        yield drawing
        for name in folders:
            (drawing / name).rename(root / name)
