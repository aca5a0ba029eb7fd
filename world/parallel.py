"""Data sets drawn by several processes: whole or not there, the same bytes with any number."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

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
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent)
    try:
        yield from pool.map(draw, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def die_with_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for work for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
