"""What a picture shows: images in grids, points, lines, counts, each with its size on paper.

    picture = Picture("class/class.jpg", "What each class looks like", (sheet(images, captions),))

It is there before it is drawn, which `drawing.py` does, so that a test can look at what a student
will see. Nothing of matplotlib is imported here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any, NamedTuple, Protocol

import numpy as np

from lab.console import letters_in

LETTER = 0.6  # width of one, of its font's size: more than the mean
LINE = 1.25  # from one line of text to the next, of the font's size
GAP = 0.1  # inches from one image to the next, or to a text
WIDEST = 6  # times its height that an image's place is wide at the most, and the other way round
BAR = 0.9  # inches that a bar of colours takes, with its label
TITLE_FONT, LEGEND_FONT, SMALLEST_FONT = 11, 9, 5  # points; of a part's title, of a legend
READABLE = 0.75  # points an inch of a grid's width: what a page shows small is written larger


def shorten(name: str, most: int = 24) -> str:
    """Return a name, of a class or a file, short enough for a caption."""
    if letters_in(name) <= most:
        return name
    kept = name[: most - 1]
    while letters_in(kept) >= most:
        kept = kept[:-1]
    return f"{kept}…"


def longest_line(texts: Iterable[str]) -> int:
    """Return the number of letters in the longest line."""
    return max((letters_in(line) for text in texts for line in text.split("\n")), default=0)


def _font_size(texts: Iterable[str], width: float, largest: float) -> float:
    """Return the font size, in points, at which lines are `width` inches wide at the most."""
    size = 72 * width / (LETTER * max(longest_line(texts), 1))
    return float(np.clip(size, SMALLEST_FONT, largest))


def text_height(texts: Iterable[str], font: float) -> float:
    """Return the height in inches of the text of the most lines."""
    return max((text.count("\n") + 1 for text in texts if text), default=0) * LINE * font / 72


class Part(Protocol):
    """What a picture consists of."""

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) in inches."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What a student will see."""

    path: str  # of its file, within the folder of pictures
    title: str
    parts: tuple[Part, ...]  # one below the other


@dataclass(frozen=True, eq=False)
class Film:
    """What a student will see move."""

    path: str  # of its file, a GIF, within the folder of pictures
    frames: np.ndarray  # (T, H, W, 3) uint8
    seconds: float = 0.12  # that each of them stands


@dataclass(frozen=True, eq=False)
class Mark:
    """A line upon an image or, of a single point, a dot."""

    points: np.ndarray  # (P, 2), x and y in pixels, of which (0, 0) spans -0.5 to 0.5
    colour: str = "magenta"  # a name of matplotlib's
    label: str = ""  # above the first point


def frame(box: Sequence[float], colour: str = "magenta", label: str = "") -> Mark:
    """Return the outline of a box: left, top, right, bottom, 0 at the edge of the first pixel."""
    left, top, right, bottom = (edge - 0.5 for edge in box)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return Mark(np.array(corners), colour, label)


@dataclass(frozen=True, eq=False)
class Tile:
    """An image of a grid."""

    image: np.ndarray  # (H, W, 3), uint8 or in [0, 1]; or values, (H, W), for the grid's colours
    caption: str = ""  # above it
    note: str = ""  # below it
    marks: tuple[Mark, ...] = ()  # upon it


@dataclass(frozen=True)
class Colours:
    """How values are coloured."""

    name: str  # of one of matplotlib's maps
    low: float  # value of its one end; what is below takes its colour
    high: float  # of the other
    label: str  # what the values are


@dataclass(frozen=True, eq=False)
class Grid:
    """Images of one height, in rows and columns."""

    tiles: Sequence[Sequence[Tile]]  # rows of them, of which some may be shorter
    rows: Sequence[str] = ()  # a label beside each
    columns: Sequence[str] = ()  # a label above each, in place of the captions of the first row
    title: str = ""
    side: float = 1.5  # height of an image in inches
    colours: Colours | None = None  # of images that are values; a bar explains them

    @property
    def size(self) -> tuple[float, float]:
        layout = self.layout()
        return layout.right + (BAR if self.colours else GAP), layout.bottom + GAP

    def width(self, tile: Tile) -> float:
        """Return the width of a tile's place in inches; a line, a panorama does not fill it."""
        height, width = tile.image.shape[:2]
        return self.side * float(np.clip(width / height, 1 / WIDEST, WIDEST))

    def captions(self) -> list[Sequence[str]]:
        """Return what stands above the tiles of each row."""
        captions = [[tile.caption for tile in row] for row in self.tiles]
        return [self.columns or captions[0], *captions[1:]]

    def layout(self) -> Layout:
        """Return where all of it is."""
        columns = zip_longest(*self.tiles)
        widths = [max(self.width(tile) for tile in column if tile) for column in columns]
        captions, notes = self.captions(), [[tile.note for tile in row] for row in self.tiles]
        largest = max(9, READABLE * sum(widths))
        font = _font_size((text for row in captions + notes for text in row), min(widths), largest)
        row_font = _font_size(self.rows, self.side, largest)
        left = GAP + text_height(self.rows, row_font)
        *lefts, end = accumulate((width + GAP for width in widths), initial=left)
        bottom, tops = text_height([self.title], TITLE_FONT) + (GAP if self.title else 0), []
        for above, below in zip(captions, notes, strict=True):
            tops.append(bottom + GAP + text_height(above, font))
            bottom = tops[-1] + self.side + text_height(below, font)
        return Layout(lefts, tops, end - GAP, bottom, font, row_font)


class Layout(NamedTuple):
    """Where a grid's images are, in inches from its upper left corner; sizes of text in points."""

    lefts: list[float]  # of each column of images
    tops: list[float]  # of each row
    right: float
    bottom: float  # of the last row, with what is written below
    font: float  # of captions and notes
    row_font: float  # of the rows' labels


def sheet(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int = 8, **options: Any
) -> Grid:
    """Return images with a caption each as a grid, filled row by row, all rows about as long.

    Args:
        columns: at the most.
        options: of `Grid`.
    """
    tiles = [Tile(*pair) for pair in zip(images, captions, strict=True)]
    columns = -(-len(tiles) // max(1, -(-len(tiles) // columns))) or columns
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    return Grid(rows, **options)


@dataclass(frozen=True, eq=False)
class Legend:
    """What colours mean."""

    colours: Mapping[str, tuple[int, int, int]]  # red, green and blue of 0 to 255, by name
    columns: int = 6  # names in a row

    @property
    def size(self) -> tuple[float, float]:
        return self.columns * self._width, -(-len(self.colours) // self.columns) * 0.22 + GAP

    @property
    def _width(self) -> float:
        """Inches of a name with its colour."""
        return 0.5 + LETTER * LEGEND_FONT * longest_line(self.colours) / 72


@dataclass(frozen=True, eq=False)
class Scatter:
    """Points of a plane that belong to classes: a colour and a marker a class."""

    points: np.ndarray  # (N, 2)
    labels: np.ndarray  # (N,), the class of each
    classes: Sequence[str]
    axes: tuple[str, str]  # what the first and the second coordinate are

    @property
    def size(self) -> tuple[float, float]:
        return 10 + 2.2 * self.columns, 7.5

    @property
    def columns(self) -> int:
        """Columns of the legend."""
        return -(-len(self.classes) // 38)


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines of one kind, each with a name."""

    x: np.ndarray  # (P,), of all of them
    lines: Mapping[str, np.ndarray]  # (P,) each, by name
    axes: tuple[str, str]  # what x and the lines are
    size = (8.0, 5.0)


@dataclass(frozen=True, eq=False)
class Confusion:
    """What of each class was taken for what."""

    counts: np.ndarray  # (C, C), (true, predicted)
    classes: Sequence[str]

    @property
    def size(self) -> tuple[float, float]:
        side = float(np.clip(0.3 * len(self.classes) + 2, 4, 60))
        return side, side


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Picture:
    """Return the picture of a confusion matrix, (true, predicted) counts."""
    title = f"{np.trace(counts):,} of {counts.sum():,} images read correctly"
    return Picture("confusion_matrix.jpg", title, (Confusion(counts, classes),))
