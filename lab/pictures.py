"""Pictures: what they show, how each kind is drawn, and how a figure is saved and opened.

    picture = Picture("class/class.jpg", "What each class looks like", (sheet(images, captions),))
    publish(draw(picture), save_dir / picture.path)    # saved and said; its window waits
    show_figures()                                     # opens the windows: a script's last act

What a picture shows is there before it is drawn, so that a test can look at what a student will
see. matplotlib is imported where something is drawn: training needs none until then.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lab.console import LabError, say

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, FigureBase

LETTER = 0.6  # width of one, of its font's size: more than the mean
LINE = 1.25  # from one line of text to the next, of the font's size
GAP = 0.1  # inches from one image to the next, or to a text
BAR = 0.9  # inches that a bar of colours takes, with its label
HEAD_FONT, TITLE_FONT, SMALLEST_FONT = 13, 11, 5  # points; of a picture's title, of a part's
LABEL_FONT = 6  # of what stands upon an image
LEGEND_FONT = 9

# ---------------------------------------------------------------- text


def plain(text: str) -> str:
    """Return a text so that matplotlib draws it as it is: `$` begins no mathematics.

    What cannot be printed, bytes of a file's name that are no UTF-8 for instance, becomes a mark.
    """
    shown = (c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return "".join(shown).replace("$", r"\$")


def shorten(name: str, most: int = 24) -> str:
    """Return a name, of a class or a file, short enough for a caption."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _longest(texts: Iterable[str]) -> int:
    """Return the number of letters in the longest line."""
    return max((len(line) for text in texts for line in text.split("\n")), default=0)


def _font_size(texts: Iterable[str], width: float, largest: float = 9) -> float:
    """Return the font size, in points, at which lines are `width` inches wide at the most."""
    size = 72 * width / (LETTER * max(_longest(texts), 1))
    return float(np.clip(size, SMALLEST_FONT, largest))


def _cut(text: str, width: float) -> str:
    """Return a text to draw, lines cut to what `width` inches hold in the smallest font."""
    most = max(12, int(72 * width / (LETTER * SMALLEST_FONT)))
    return plain("\n".join(shorten(line, most) for line in text.split("\n")))


def _height(texts: Iterable[str], font: float) -> float:
    """Return the height in inches of the text of the most lines."""
    return max((text.count("\n") + 1 for text in texts if text), default=0) * LINE * font / 72


# ---------------------------------------------------------------- what a picture shows


class Part(Protocol):
    """What a picture consists of."""

    @property
    def size(self) -> tuple[float, float]:
        """(width, height) in inches."""

    def draw(self, figure: "FigureBase") -> None:
        """Draw into a figure of this size."""


@dataclass(frozen=True, eq=False)
class Picture:
    """What a student will see.

    Attributes:
        path: of its file, within the folder of pictures.
        title: above all.
        parts: one below the other.
    """

    path: str
    title: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Film:
    """What a student will see move.

    Attributes:
        path: of its file, a GIF, within the folder of pictures.
        frames: (T, H, W, 3) uint8.
        seconds: that each of them stands.
    """

    path: str
    frames: np.ndarray
    seconds: float = 0.12


@dataclass(frozen=True, eq=False)
class Mark:
    """A line upon an image, or a dot.

    Attributes:
        points: (P, 2), x and y in pixels, of which (0, 0) spans -0.5 to 0.5; a single one is a dot.
        colour: a name of matplotlib's.
        label: written above the first point.
    """

    points: np.ndarray
    colour: str = "magenta"
    label: str = ""


def frame(box: Sequence[float], colour: str = "magenta", label: str = "") -> Mark:
    """Return the outline of a box: left, top, right, bottom, 0 at the edge of the first pixel."""
    left, top, right, bottom = (edge - 0.5 for edge in box)
    corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    return Mark(np.array(corners), colour, label)


@dataclass(frozen=True, eq=False)
class Tile:
    """An image of a grid.

    Attributes:
        image: (H, W, 3), uint8 or in [0, 1]; or values, (H, W), for the grid's colours.
        caption, note: above it and below.
        marks: upon it.
    """

    image: np.ndarray
    caption: str = ""
    note: str = ""
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Colours:
    """How values are coloured.

    Attributes:
        name: of one of matplotlib's maps.
        low, high: values of its ends; what is beyond takes their colours.
        label: what the values are.
    """

    name: str
    low: float
    high: float
    label: str


@dataclass(frozen=True, eq=False)
class Grid:
    """Images of one height, in rows and columns.

    Attributes:
        tiles: rows of them, of which some may be shorter.
        rows, columns: a label beside each row; one above each column, in place of the captions of
            the first row.
        title: above the grid.
        side: height of an image in inches.
        colours: of images that are values; a bar explains them.
    """

    tiles: Sequence[Sequence[Tile]]
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    title: str = ""
    side: float = 1.5
    colours: Colours | None = None

    @property
    def size(self) -> tuple[float, float]:
        layout = self._layout()
        return layout.right + (BAR if self.colours else GAP), layout.bottom + GAP

    def draw(self, figure: "FigureBase") -> None:
        """Draw all images into one axis whose unit is the inch: an axis each takes seconds."""
        layout = self._layout()
        axis = figure.add_axes((0, 0, 1, 1))
        for tiles, captions, top in zip(self.tiles, self._captions(), layout.tops, strict=True):
            for tile, caption, left in zip(tiles, captions, layout.lefts, strict=False):
                shown = self._draw_tile(axis, tile, left, top)
                width = self._width(tile)
                text = {"x": left + width / 2, "ha": "center", "fontsize": layout.font}
                axis.text(y=top - 0.03, s=_cut(caption, width), va="bottom", **text)
                axis.text(y=top + self.side + 0.03, s=_cut(tile.note, width), va="top", **text)
        for label, top in zip(self.rows, layout.tops, strict=False):
            axis.text(
                layout.lefts[0] - 0.05, top + self.side / 2, _cut(label, self.side), rotation=90,
                fontsize=layout.row_font, ha="right", va="center", multialignment="center",
            )  # fmt: skip
        middle = (layout.lefts[0] + layout.right) / 2
        axis.text(middle, GAP, plain(self.title), ha="center", va="top", fontsize=TITLE_FONT)
        width, height = self.size
        axis.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
        axis.axis("off")
        if self.colours:
            tall = min(layout.bottom - layout.tops[0], 3)
            place = (layout.right + GAP, (layout.tops[0] + layout.bottom - tall) / 2, 0.12, tall)
            bar = axis.inset_axes(place, transform=axis.transData)
            values = [tile.image for row in self.tiles for tile in row]
            lower = min(image.min() for image in values) < self.colours.low
            higher = max(image.max() for image in values) > self.colours.high
            extend = ("neither", "min", "max", "both")[lower + 2 * higher]
            axis.figure.colorbar(shown, cax=bar, label=plain(self.colours.label), extend=extend)

    def _width(self, tile: Tile) -> float:
        height, width = tile.image.shape[:2]
        return self.side * width / height

    def _captions(self) -> list[Sequence[str]]:
        """Return what stands above the tiles of each row."""
        captions = [[tile.caption for tile in row] for row in self.tiles]
        return [self.columns or captions[0], *captions[1:]]

    def _draw_tile(self, axis: "Axes", tile: Tile, left: float, top: float) -> Any:
        from matplotlib.patches import Rectangle

        image, options = tile.image, {}
        if image.ndim == 2:
            colours = self.colours
            options = {"cmap": colours.name, "vmin": colours.low, "vmax": colours.high}
        elif image.dtype != np.uint8:
            image = np.clip(image, 0, 1)  # sums may round to above 1
        width, scale = self._width(tile), self.side / len(image)  # inches; inches a pixel
        extent = (left, left + width, top + self.side, top)
        shown = axis.imshow(image, extent=extent, **options)
        frame = Rectangle((left, top), width, self.side, fill=False, ec="0.8", linewidth=0.5)
        axis.add_patch(frame)
        for mark in tile.marks:
            x, y = ((np.asarray(mark.points) + 0.5) * scale + (left, top)).T
            style = {"marker": "o", "markersize": 7, "markeredgecolor": "black"}
            (line,) = axis.plot(x, y, color=mark.colour, **(style if len(x) == 1 else {}))
            line.set_clip_path(frame)
            if mark.label:
                axis.text(
                    x[0], y[0] - 0.02, plain(mark.label), fontsize=LABEL_FONT, va="bottom",
                    bbox={"boxstyle": "square,pad=0.1", "fc": mark.colour, "ec": "none"},
                )  # fmt: skip
        return shown

    def _layout(self) -> "_Layout":
        columns = zip_longest(*self.tiles)
        widths = [max(self._width(tile) for tile in column if tile) for column in columns]
        captions, notes = self._captions(), [[tile.note for tile in row] for row in self.tiles]
        font = _font_size((text for row in captions + notes for text in row), min(widths))
        row_font = _font_size(self.rows, self.side)
        left = GAP + _height(self.rows, row_font)
        *lefts, end = accumulate((width + GAP for width in widths), initial=left)
        bottom, tops = _height([self.title], TITLE_FONT) + (GAP if self.title else 0), []
        for above, below in zip(captions, notes, strict=True):
            tops.append(bottom + GAP + _height(above, font))
            bottom = tops[-1] + self.side + _height(below, font)
        return _Layout(lefts, tops, end - GAP, bottom, font, row_font)


@dataclass(frozen=True)
class _Layout:
    """Where a grid's images are, in inches from its upper left corner, and the sizes of its texts.

    Attributes:
        lefts, tops: of each column and each row of images.
        right, bottom: of the last ones, with what is written below.
        font, row_font: in points; of captions and notes, and of the rows' labels.
    """

    lefts: list[float]
    tops: list[float]
    right: float
    bottom: float
    font: float
    row_font: float


def sheet(
    images: Sequence[np.ndarray], captions: Sequence[str], columns: int = 8, **options: Any
) -> Grid:
    """Return images with a caption each as a grid that is filled row by row.

    Args:
        options: further attributes of the grid.
    """
    tiles = [Tile(*pair) for pair in zip(images, captions, strict=True)]
    rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
    return Grid(rows, **options)


@dataclass(frozen=True, eq=False)
class Legend:
    """What colours mean.

    Attributes:
        colours: red, green and blue of 0 to 255, by name.
        columns: names in a row.
    """

    colours: Mapping[str, tuple[int, int, int]]
    columns: int = 6

    @property
    def size(self) -> tuple[float, float]:
        return self.columns * self._width, -(-len(self.colours) // self.columns) * 0.22 + GAP

    @property
    def _width(self) -> float:
        """Inches of a name with its colour."""
        return 0.5 + LETTER * LEGEND_FONT * _longest(self.colours) / 72

    def draw(self, figure: "FigureBase") -> None:
        """Draw a patch of each colour with its name."""
        from matplotlib.patches import Patch

        patches = [
            Patch(facecolor=[level / 255 for level in colour], edgecolor="0.5")
            for colour in self.colours.values()
        ]
        names = [plain(name) for name in self.colours]
        figure.legend(
            patches, names, loc="center", ncols=self.columns, fontsize=LEGEND_FONT, frameon=False
        )


@dataclass(frozen=True, eq=False)
class Scatter:
    """Points of a plane that belong to classes: a colour and a marker a class.

    Attributes:
        points: (N, 2).
        labels: (N,), the class of each.
        classes: their names.
        axes: what the first and the second coordinate are.
    """

    points: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    axes: tuple[str, str]

    @property
    def size(self) -> tuple[float, float]:
        return 10 + 2.2 * self._columns, 7.5

    @property
    def _columns(self) -> int:
        """Columns of the legend."""
        return -(-len(self.classes) // 38)

    def draw(self, figure: "FigureBase") -> None:
        """Draw the points, and each class's number in the middle of its own."""
        from matplotlib import colormaps

        axis = figure.subplots()
        colours, markers = colormaps["tab10"].colors, "os^D"
        for label, name in enumerate(self.classes):
            own = self.points[self.labels == label]
            axis.scatter(
                *own.T, s=22, color=colours[label % 10], marker=markers[label // 10 % len(markers)],
                edgecolors="black", linewidths=0.3, label=plain(name),
            )  # fmt: skip
            if len(own):
                axis.annotate(
                    label, np.median(own, 0), ha="center", va="center", fontsize=9, weight="bold",
                    bbox={"boxstyle": "round,pad=0.15", "alpha": 0.8, "fc": "white"},
                )  # fmt: skip
        axis.set(xlabel=self.axes[0], ylabel=self.axes[1], xticks=[], yticks=[])
        figure.legend(loc="outside right upper", fontsize=9, ncols=self._columns)


@dataclass(frozen=True, eq=False)
class Curves:
    """Lines of one kind, each with a name.

    Attributes:
        x: (P,), of all of them.
        lines: (P,) each, by name.
        axes: what x and the lines are.
    """

    x: np.ndarray
    lines: Mapping[str, np.ndarray]
    axes: tuple[str, str]
    size = (8.0, 5.0)

    def draw(self, figure: "FigureBase") -> None:
        """Draw the lines, from 0 to at least 1."""
        axis = figure.subplots()
        for index, (name, values) in enumerate(self.lines.items()):
            style = ("-", "--", ":", "-.")[index // 10 % 4]
            axis.plot(self.x, values, style, color=f"C{index % 10}", label=plain(name))
        axis.set(xlabel=self.axes[0], ylabel=self.axes[1], xlim=(0, None), ylim=(0, 1.02))
        axis.grid(alpha=0.3)
        columns = -(-len(self.lines) // 22)
        figure.legend(loc="outside right upper", fontsize=8, ncols=columns)


@dataclass(frozen=True, eq=False)
class Confusion:
    """What of each class was taken for what.

    Attributes:
        counts: (C, C), (true, predicted).
        classes: their names.
    """

    counts: np.ndarray
    classes: Sequence[str]

    @property
    def size(self) -> tuple[float, float]:
        side = float(np.clip(0.3 * len(self.classes) + 2, 4, 60))
        return side, side

    def draw(self, figure: "FigureBase") -> None:
        """Draw the counts; colour shows the share of a row."""
        axis = figure.subplots()
        scale = min(1, (self.size[0] - 2) / (0.3 * len(self.classes)))  # of hundreds of classes
        shares = self.counts / np.maximum(self.counts.sum(1, keepdims=True), 1)
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for true, predicted in zip(*np.nonzero(self.counts), strict=True):
            colour = "white" if shares[true, predicted] > 0.5 else "black"
            axis.text(
                predicted, true, self.counts[true, predicted],
                ha="center", va="center", color=colour, fontsize=7 * scale,
            )  # fmt: skip
        names = [plain(shorten(name)) for name in self.classes]
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8 * scale)
        axis.set_yticks(range(len(names)), names, fontsize=8 * scale)
        axis.set(xlabel="predicted class", ylabel="true class")


def confusion(counts: np.ndarray, classes: Sequence[str]) -> Picture:
    """Return the picture of a confusion matrix, (true, predicted) counts."""
    title = f"{np.trace(counts):,} of {counts.sum():,} images read correctly"
    return Picture("confusion_matrix.jpg", title, (Confusion(counts, classes),))


# ---------------------------------------------------------------- figures


def draw(picture: Picture) -> "Figure":
    """Draw what a picture shows."""
    import matplotlib.pyplot as plt

    widths, heights = zip(*(part.size for part in picture.parts), strict=True)
    title = picture.title.split("\n")
    width = max(*widths, LETTER * HEAD_FONT / 72 * _longest(title) + 2 * GAP)
    head = _height([picture.title], HEAD_FONT) + GAP
    figure = plt.figure(figsize=(width, sum(heights) + head), layout="constrained")
    figure.suptitle(plain(picture.title), fontsize=HEAD_FONT)
    places = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    for part, place in zip(picture.parts, places.flat, strict=True):
        part.draw(place)
    return figure


def save_figure(figure: "Figure", path: Path, dpi: int = 150) -> None:
    """Save a figure; its folder is made.

    Raises:
        LabError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, bbox_inches="tight", pil_kwargs={"quality": 90})
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror or error}") from error


def save_closed(figure: "Figure", path: Path) -> None:
    """Save a figure that no window is to show; errors as of `save_figure`."""
    import matplotlib.pyplot as plt

    save_figure(figure, path)
    plt.close(figure)


def publish(figure: "Figure", path: Path) -> None:
    """Save a figure and say where; its window, where there is a display, waits.

    Raises:
        LabError: the file cannot be written.
    """
    import matplotlib.pyplot as plt

    save_figure(figure, path)
    say(f"Saved {path}")
    # Without a display, matplotlib falls back to a canvas that belongs to no window.
    if figure.canvas.required_interactive_framework is None:
        plt.close(figure)


def publish_film(film: Film, path: Path) -> None:
    """Save a film that plays over and over, and say where.

    Raises:
        LabError: the file cannot be written.
    """
    from PIL import Image

    first, *rest = map(Image.fromarray, film.frames)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        duration = round(1000 * film.seconds)
        first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror or error}") from error
    say(f"Saved {path}")


def show_figures() -> None:
    """Open the windows of what was published, and wait until they are closed.

    A script's last act, after all is saved and said; without a display it does nothing.
    """
    import matplotlib.pyplot as plt

    if plt.get_fignums():
        plt.show()


# ---------------------------------------------------------------- curves


def draw_curves(history: Sequence[dict], ranks_by: str = "accuracy") -> "Figure":
    """Draw the losses, and the figure that ranks epochs, of training and of validation.

    Args:
        history: as `engine.fit` returns it, a row an epoch: `loss`, and where they were measured
            `val_loss`, the ranking figure, and `val_` with its name.
        ranks_by: name of that figure; drawn in % where it is a share.
    """
    import matplotlib.pyplot as plt

    figure, loss_axis = plt.subplots(figsize=(6.8, 4.6), layout="constrained")
    lines = _plot_both(loss_axis, history, "loss", "C0")
    loss_axis.set(xlabel="epoch", ylabel="loss", ylim=(min(0, loss_axis.get_ylim()[0]), None))
    loss_axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    loss_axis.grid(alpha=0.3)
    name, unit, scale = _how_shown([history], ranks_by)
    if ranking := _plot_both(axis := loss_axis.twinx(), history, ranks_by, "C2", scale):
        axis.set_ylabel(f"{name} ({unit})" if unit else name)
    else:
        axis.remove()
    values = [value for value in _curve(history, f"val_{ranks_by}", scale)[1] if np.isfinite(value)]
    if values:
        best = f"{max(values):.2f} %" if unit else f"{max(values):.4g}"
        loss_axis.set_title(f"best validation {name}: {best}")
    figure.legend(handles=lines + ranking, loc="outside lower center", ncols=2)
    return figure


def save_curves(path: Path, history: Sequence[dict], ranks_by: str = "accuracy") -> None:
    """Draw the curves of `draw_curves` into a file, without opening a window."""
    save_closed(draw_curves(history, ranks_by), path)


def draw_comparison(histories: dict[str, Sequence[dict]], ranks_by: str = "accuracy") -> "Figure":
    """Draw the losses of runs, and their validation by the figure that ranks epochs, a colour each.

    A share has the logarithm of what it lacks for its axis: 98 and 99 % are as far apart as 80
    and 90.

    Args:
        histories: by the run's name, as `draw_curves` takes them.
        ranks_by: name of the figure.
    """
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator

    figure, (loss_axis, axis) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    name, unit, scale = _how_shown(histories.values(), ranks_by)
    lines, losses, shown = [], [], []
    for index, history in enumerate(histories.values()):
        style = {"color": f"C{index % 10}", "marker": "osv^D"[index % 5], "markersize": 4}
        for key, line in (("loss", "-"), ("val_loss", ":")):
            epochs, values = _curve(history, key)
            loss_axis.plot(epochs, values, line, **style)
            losses += values
        epochs, values = _curve(history, f"val_{ranks_by}", scale)
        values = [100 - value for value in values] if unit else values
        # Points at the edge are not cut; but without a point, the layout takes it for endless.
        style["clip_on"] = not np.isfinite(values).any()
        lines += axis.plot(epochs, values, **style)
        shown += values
    if min(losses, default=1.0) > 0:
        loss_axis.set_yscale("log")
        loss_axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        loss_axis.yaxis.set_major_formatter("{x:g}")
    loss_axis.set_ylabel("cross-entropy loss" if ranks_by == "accuracy" else "loss")
    kinds = [plt.Line2D([], [], color="black", linestyle=style) for style in "-:"]
    loss_axis.legend(kinds, ["training", "validation"])
    if unit:
        _scale_by_lack(axis, shown)
    axis.set_ylabel(f"validation {name} ({unit})" if unit else f"validation {name}")
    for each in (loss_axis, axis):
        each.set_xlabel("epoch")
        each.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        each.minorticks_off()
        each.grid(alpha=0.3)
    names = [plain(shorten(name, 40)) for name in histories]
    figure.legend(lines, names, loc="outside lower center", ncols=min(len(names), 5))
    return figure


def _scale_by_lack(axis: "Axes", lacks: Sequence[float]) -> None:
    """Have an axis of what values lack to 100 % show the values, spread by its logarithm.

    0 has no logarithm: from the smallest lack that there is, the axis goes on linearly to it.
    """
    from matplotlib.ticker import SymmetricalLogLocator

    lacks = [lack for lack in lacks if np.isfinite(lack)]
    smallest = min((lack for lack in lacks if lack > 0), default=1.0)
    axis.set_yscale("symlog", linthresh=smallest, linscale=0.4)
    ticks = SymmetricalLogLocator(base=10, linthresh=smallest, subs=(1, 2, 3, 5, 7))
    axis.yaxis.set_major_locator(ticks)
    axis.yaxis.set_major_formatter(lambda lack, _: f"{100 - lack:g}")
    axis.set_ylim(1.1 * max([smallest, *lacks]), min([0.9 * smallest, *lacks]))


def _curve(history: Sequence[dict], key: str, scale: float = 1.0) -> tuple[list, list]:
    """Return the epochs that a figure was measured in, and its values."""
    rows = [row for row in history if row.get(key) is not None]
    return [row["epoch"] for row in rows], [scale * row[key] for row in rows]


def _plot_both(
    axis: "Axes", history: Sequence[dict], key: str, colour: str, scale: float = 1.0
) -> list:
    """Plot a figure of training and, dashed, of validation; return the lines that there are."""
    lines = []
    for split, prefix, style in (("training", "", "o-"), ("validation", "val_", "s--")):
        epochs, values = _curve(history, prefix + key, scale)
        if epochs:
            label = f"{split} {key.replace('_', ' ')}"
            lines += axis.plot(epochs, values, style, color=colour, markersize=4, label=label)
    return lines


def _how_shown(histories: Iterable[Sequence[dict]], key: str) -> tuple[str, str, float]:
    """Return what to call a figure, its unit, and the factor to it: a share is shown in %."""
    values = [
        value for history in histories for each in (key, f"val_{key}")
        for value in _curve(history, each)[1]
    ]  # fmt: skip
    share = all(0 <= value <= 1 for value in values if np.isfinite(value))
    return key.replace("_", " "), "%" if share else "", 100.0 if share else 1.0
