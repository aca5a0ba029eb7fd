"""Images held out of a data set, its groups kept together: the same ones every time.

held = held_out(labels, map(group_of, paths), share=0.1)      # (N,): 1 is held out, 0 stays
held = held_out(labels, paths, share=0.1, parts=2)            # 1 is held out as val, 2 as test
held = held_out_films(labels, films_of(paths), share=0.1)
"""

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

# Names, each with what is of one scene before a number of its own.
TRACK = re.compile(r"(.*\d{5})_\d{5}")  # track and frame in GTSRB's names, 00012_00029
TAKE = re.compile(r"(.+_g\d+)_c\d+.*")  # group and clip in UCF-101's, v_Biking_g01_c04
SPAN = re.compile(r"(.+)_\d{6}_\d{6}")  # film and seconds in Kinetics'
CLIP = re.compile(
    r"(.+?)(?:[ _.-]+c?|[ _.-]*(?:clip|scene|shot|part|cut|take|seg)[ _.-]*)\d+", re.IGNORECASE
)
FRAME = re.compile(
    r"(?P<film>.+?)(?:[ _./-]*(?P<word>frame)|[ _./-]+f?)[ _.-]*(?P<number>\d+)", re.IGNORECASE
)
COPY = re.compile(r"(.+)[_.](?:jpe?g|png|bmp)\.rf\.\w+")  # a picture, as Roboflow varies it


def group_of(path: Path) -> str:
    """Return what the frames of one sign have in common in their names; else the name itself."""
    match = TRACK.fullmatch(path.stem) or TAKE.fullmatch(path.stem)
    return match[1] if match else path.name


def film_of_clip(path: Path) -> str:
    """Return what the clips of one film have in common in their names; else the name itself."""
    kinds = (TAKE, SPAN, CLIP)
    return next((m[1] for kind in kinds if (m := kind.fullmatch(path.stem))), path.name)


def films_of(paths: Sequence[Path]) -> list[str]:
    """Return what the pictures of one film have in common in their names; else the name itself.

    The frames of a film, or of a folder, are numbered with as many digits each; pictures that are
    not, unless they are called frames, are no film's.
    """
    names, films, digits = [], [], {}
    for path in paths:
        copied = COPY.fullmatch(path.stem)
        names.append(f"{path.parent.name}/{copied[1] if copied else path.stem}")
        match = TRACK.fullmatch(names[-1]) or TAKE.fullmatch(names[-1])
        framed = None if match else FRAME.fullmatch(names[-1])
        films.append(match[1] if match else framed and framed["film"])
        if framed and not framed["word"]:
            digits.setdefault(framed["film"], set()).add(len(framed["number"]))
    loose = {film for film, lengths in digits.items() if len(lengths) > 1 or min(lengths) < 3}
    return [
        name if film is None or film in loose else film
        for name, film in zip(names, films, strict=True)
    ]


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


def held_out_tracks(labels: Sequence[int], paths: Sequence[Path], share: float) -> np.ndarray:
    """Choose images as `held_out` does, those of one sign together."""
    return held_out(labels, map(group_of, paths), share)


def held_out_films(
    labels: Sequence[int], films: Sequence[str], share: float, seed: int = 0
) -> np.ndarray:
    """Choose about a share of each class, films whole even where several classes are in them.

    Never more than half of a class. A class that is all of one film is chosen from one by one, and
    so is everything, as `held_out` does, where no two inputs are of one film.

    Args:
        labels, films: of N inputs.

    Returns:
        int (N,): 1 of what is held out.
    """
    own_films: dict[int, set[str]] = {}
    for label, film in zip(labels, films, strict=True):
        own_films.setdefault(label, set()).add(film)
    members: dict[Hashable, list[int]] = {}
    for index, (label, film) in enumerate(zip(labels, films, strict=True)):
        members.setdefault(film if len(own_films[label]) > 1 else index, []).append(index)
    if len(members) == len(films):
        return held_out(labels, range(len(films)), share, seed=seed)
    whole, out, held = Counter(labels), Counter(), np.zeros(len(films), int)
    every = [(own, Counter(labels[index] for index in own)) for own in members.values()]
    order = [every[k] for k in np.random.default_rng(seed).permutation(len(every))]
    for label, count in sorted(whole.items()):
        wanted = max(1, round(share * count))
        of_label = [(max(0, len(own) - wanted), own, kinds) for own, kinds in order if kinds[label]]
        for _, own, kinds in sorted(of_label, key=itemgetter(0)):  # not too many at once
            fits = all(2 * (out[kind] + more) <= whole[kind] for kind, more in kinds.items())
            if out[label] < wanted and fits and not held[own[0]]:
                held[own] = 1
                out += kinds
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
    held = held_out_films([0] * len(pictures), films_of([each.path for each in pictures]), share)
    chosen = [p for p, out in zip(pictures, held, strict=True) if out == (mode == "val")]
    return listing._replace(pictures=chosen), True
