"""Files that are written whole, or not and in one line why.

with attempt(f"write {path}"):
    image.save(path)
write_whole(folder / "test.json", text)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.console import LabError


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
