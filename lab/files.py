"""Files that are written whole, or not and in one line why; folders that one process makes.

with attempt(f"write {path}"):
    image.save(path)
write_whole(folder / "test.json", text)
with alone(folder, "draws into"):
    draw(folder)
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lab.console import LabError, say


def reason(error: OSError) -> str:
    """Return what is wrong with a file, without its name."""
    return error.strerror or str(error) or type(error).__name__


@contextmanager
def attempt(what: str) -> Iterator[None]:
    """Turn an OSError of the block into a LabError: `cannot {what}`, and the reason."""
    try:
        yield
    except OSError as error:
        raise LabError(f"cannot {what}: {reason(error)}") from error


def write_whole(path: Path, text: str) -> None:
    """Write a file, which is there as it was or whole.

    Raises:
        LabError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with attempt(f"write {path}"):
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")
        partial.replace(path)


@contextmanager
def alone(folder: Path, what: str, instead: str | None = None) -> Iterator[None]:
    """Let one process at a time do something to a folder; a killed one is not waited for.

    Args:
        what: another one does to it, as a user is told.
        instead: of waiting, what to do; None to wait.

    Raises:
        LabError: it cannot be written; or another process is at it, and is not waited for.
    """
    lock = FileLock(folder / ".lock")
    with attempt(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            other = f"another process {what} {folder}"
            if instead is not None:
                raise LabError(f"{other}: {instead}") from error
            say(f"{other[0].upper()}{other[1:]}: waiting for it")
            lock.acquire()
    try:
        yield
    finally:
        with suppress(OSError):  # where an open file cannot be removed
            (folder / ".lock").unlink()
        lock.release()
