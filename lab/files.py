"""Files that are written whole, or not and in one line why; text as whatever program wrote it.

with attempt(f"write {path}"):
    image.save(path)
write_whole(folder / "test.json", text)
names = read_lines(folder / "train.txt")
with alone(folder, "draws into"):
    draw(folder)
"""

import codecs
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


def read_text(path: Path, errors: str = "strict", utf16: bool = True) -> str:
    r"""Read a text file, with a byte order mark or without; every line ends in \n.

    Notepad and spreadsheets put the mark before UTF-8, PowerShell writes UTF-16. Read as plain
    UTF-8, it would become a letter of the first name in a list.

    Args:
        errors: of bytes that are no UTF-8; "surrogateescape" where they may name files.
        utf16: take such a file as well; not where UTF-8 is added to it.

    Raises:
        LabError: it cannot be read, or is no such text.
    """
    with attempt(f"read {path}"):
        body = path.read_bytes()
    wide = utf16 and body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = body.decode("utf-16") if wide else body.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise LabError(f"cannot read {path}: it is no UTF-8 text; save it as UTF-8") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, errors: str = "strict") -> list[str]:
    """Return the lines of a text file that are not empty, without the spaces around each."""
    return [line.strip() for line in read_text(path, errors).split("\n") if line.strip()]
