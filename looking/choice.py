"""Which classes and which inputs are looked at: what indices and names in flags mean."""

import difflib
import re
from collections.abc import Sequence

import numpy as np

from lab.console import UsageError


def check_index(flag: str, index: int, count: int, what: str) -> int:
    """Return an index; raise a UsageError that names the valid range unless 0 <= index < count."""
    if count == 0:
        raise UsageError(f"{flag} {index}: there are no {what}")
    if not 0 <= index < count:
        raise UsageError(f"{flag} {index} is out of range: the {what} are 0 to {count - 1}")
    return index


def class_index(text: str, classes: Sequence[str]) -> int:
    """Return the class that a `--target` means: an index, a name, or one without its number.

    Raises:
        UsageError: there is no such class; names the range, or those that are spelt alike.
    """
    if re.fullmatch(r"-?\d+", text):
        return check_index("--target", int(text), len(classes), "classes")
    wanted = text.lower().replace(" ", "_")
    names = [name.lower().replace(" ", "_") for name in classes]
    plain = [name.lstrip("0123456789").lstrip("_") for name in names]
    for known in (names, plain):
        if wanted in known:
            return known.index(wanted)
    alike = difflib.get_close_matches(wanted, plain, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(alike)}?" if alike else "."
    raise UsageError(
        f"--target {text}: no such class{hint} An index from 0 to {len(classes) - 1} will do, too"
    )


def spread_over_classes(labels: np.ndarray, most: int) -> np.ndarray:
    """Return indices of at most `most` images, as evenly over the classes as there are images."""
    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])  # where the class of each begins
    turn = np.empty(len(labels), int)  # the how-manieth of its class an image is
    turn[order] = np.arange(len(labels)) - first
    # Every step through a class takes images from all over it: neighbours are one sign's frames.
    counts = np.bincount(labels)[labels]
    scattered = (turn * 7919 + counts // 2) % counts
    return np.sort(np.argsort(scattered, kind="stable")[:most])
