"""Which classes and which inputs are looked at: what indices and names in flags mean."""

import difflib
import re
from collections.abc import Callable, Sequence

import numpy as np

from lab.console import UsageError

COMPARED = 400  # images of which those of middle brightness are shown


def check_index(flag: str, index: int, count: int, what: str) -> int:
    """Return an index; raise a UsageError that names the valid range unless 0 <= index < count."""
    if count == 0:
        raise UsageError(f"{flag} {index}: there are no {what}")
    if not 0 <= index < count:
        raise UsageError(f"{flag} {index} is out of range: the {what} are 0 to {count - 1}")
    return index


def class_index(text: str, classes: Sequence[str]) -> int:
    """Return the class that a `--target` means: a name, one without its number, or an index.

    Where every name is a number or begins with one, such as 10_priority_road, a number means that
    one, whether or not the classes are in its place.

    Raises:
        UsageError: there is no such class; names the range, or those that are spelt alike.
    """
    numbers = [re.match(r"\d+(?=[ _-]|$)", name) for name in classes]
    if text.isdecimal() and all(numbers):
        known = [int(number[0]) for number in numbers]
        if known.count(int(text)) == 1:
            return known.index(int(text))
    if text not in classes and re.fullmatch(r"-?\d+", text):
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


def one_class(view: str, target: Sequence[str] | None, classes: Sequence[str]) -> int | None:
    """Return the one class that a view's `--target` names, if it is given.

    Raises:
        UsageError: it names several, or one that there is not.
    """
    if target is None:
        return None
    if len(target) > 1:
        raise UsageError(f"--type {view} takes one --target, not {len(target)}")
    return class_index(target[0], classes)


def spread_over_classes(labels: np.ndarray, most: int) -> np.ndarray:
    """Return indices of at most `most` images, as evenly over the classes as there are images."""
    turn = turns(labels, np.arange(len(labels)))
    # Every step through a class takes images from all over it: neighbours are one sign's frames.
    counts = np.bincount(labels)[labels]
    scattered = (turn * 7919 + counts // 2) % counts
    return np.sort(np.argsort(scattered, kind="stable")[:most])


def examples(labels: np.ndarray, brightness: Callable[[int], float], most: int) -> list[int]:
    """Return indices of at most `most` images that are neither dark nor glaring, class by class.

    Of each class those nearest the middle brightness of all: some classes have mostly dark ones. Of
    more classes than images, some from the first to the last.

    Args:
        brightness: of the image at an index; asked of `COMPARED` images at the most.
    """
    present = np.unique(labels)
    shown = present[np.linspace(0, len(present) - 1, min(most, len(present))).astype(int)]
    some = np.flatnonzero(np.isin(labels, shown))
    some = some[spread_over_classes(labels[some], COMPARED)]
    light, labels = np.array([brightness(index) for index in some.tolist()]), labels[some]
    turn = turns(labels, np.abs(light - np.median(light)))
    chosen = np.lexsort((labels, turn))[:most]
    return some[chosen[np.lexsort((turn[chosen], labels[chosen]))]].tolist()


def turns(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the how-manieth of its class each image is, from 0, by `order`, the least first."""
    rows = np.lexsort((order, labels))
    first = np.searchsorted(labels[rows], labels[rows])  # where the class of each begins
    turn = np.empty(len(labels), int)
    turn[rows] = np.arange(len(labels)) - first
    return turn
