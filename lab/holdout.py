"""Images held out of a data set, its groups kept together: the same ones every time.

held = held_out(labels, map(group_of, paths), share=0.1)      # (N,): 1 is held out, 0 stays
held = held_out(labels, paths, share=0.1, parts=2)            # 1 is held out as val, 2 as test
"""

import re
from collections.abc import Callable, Hashable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

TRACK = re.compile(r"(.*\d{5})_\d{5}")  # track and frame in GTSRB's names, 00012_00029


def group_of(path: Path) -> str:
    """Return what the frames of one sign have in common in their names; else the name itself."""
    match = TRACK.fullmatch(path.stem)
    return match[1] if match else path.name


def held_out(
    labels: Iterable[Any], groups: Iterable[Hashable], share: float, parts: int = 1, seed: int = 0
) -> np.ndarray:
    """Choose a share of each class's groups, always the same: at least one, never all.

    Args:
        labels: of N images; classes are chosen from in their order.
        groups: of the same; images of one group and class stay together.
        share: of each of the `parts` that are held out.

    Returns:
        int (N,): 0 of what stays, 1 to `parts` of what is held out.
    """
    pairs = list(zip(labels, groups, strict=True))
    members: dict[Any, dict[Hashable, list[int]]] = {}
    for index, (label, group) in enumerate(pairs):
        members.setdefault(label, {}).setdefault(group, []).append(index)
    held = np.zeros(len(pairs), int)
    rng = np.random.default_rng(seed)
    for _, own in sorted(members.items()):
        indices = list(own.values())
        count = min((len(indices) - 1) // parts, max(1, round(share * len(indices))))
        for rank, chosen in enumerate(rng.permutation(len(indices))[: parts * count]):
            held[indices[chosen]] = 1 + rank // count
    return held


def find_listing(
    read: Callable[[Path, str], Any], root: Path, mode: str, share: float
) -> tuple[Any, bool]:
    """Return what `read(root, mode)` lists of a split, and whether it is train parted into two.

    Args:
        read: to a NamedTuple with `pictures`, a list; to None where there is no such split.
        share: of train, held out as val where there is no val.
    """
    if mode == "test" or read(root, "val") is not None:
        return read(root, mode), False
    listing = read(root, "train")
    if listing is None:
        return None, False
    pictures = listing.pictures
    held = held_out([0] * len(pictures), range(len(pictures)), share)
    chosen = [p for p, out in zip(pictures, held, strict=True) if out == (mode == "val")]
    return listing._replace(pictures=chosen), True
