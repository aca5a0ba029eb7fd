"""How each part of a picture is drawn, and how a figure is saved and opened.

    publish(draw(picture), save_dir / picture.path)    # saved and said; its window waits
    show_figures()                                     # opens the windows: a script's last act

A task that has a part of its own says how it is drawn: `@draw_part.register`.
"""

import math
import warnings
from contextlib import suppress
from functools import cache, singledispatch
from itertools import chain, count
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch, Rectangle
from PIL import Image, ImageFont

from lab.console import letters_in, say
from lab.files import attempt
from lab.pictures import (
    GAP,
    LEGEND_FONT,
    LETTER,
    SMALLEST_FONT,
    TITLE_FONT,
    Confusion,
    Curves,
    Film,
    Grid,
    Legend,
    Part,
    Picture,
    Scatter,
    Tile,
    longest_line,
    shorten,
    text_height,
)

MOST_PIXELS, LONGEST_SIDE = 60_000_000, 30_000  # of a file; what is larger is drawn coarser
HEAD_FONT = 13  # points; of a picture's title
LABEL_FONT = 6  # of what stands upon an image
LABEL_LINE = 1.5 * LABEL_FONT / 72  # inches
# Families that have Chinese, Japanese and Korean letters; of those installed the first is used.
CJK_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC",
    "Source Han Sans CN", "Microsoft YaHei", "PingFang SC", "Hiragino Sans GB", "Heiti SC",
    "Heiti TC", "STHeiti", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei",
    "Droid Sans Fallback", "Arial Unicode MS", "Noto Serif CJK SC", "Noto Serif CJK JP",
    "Songti SC", "SimSun", "AR PL UMing CN", "AR PL UKai CN", "Unifont",
)  # fmt: skip
# `plain` says once what no font can draw; matplotlib would for each letter, whenever it draws.
warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font", UserWarning)
warnings.filterwarnings("ignore", "Matplotlib currently does not support", UserWarning)
getLogger("matplotlib.font_manager").setLevel(ERROR)  # of a family that has no bold letters

# ---------------------------------------------------------------- text


@cache
def choose_cjk_font() -> None:
    """Have matplotlib draw Chinese letters with the first of `CJK_FONTS` that is installed."""
    fonts = font_manager.fontManager
    if not {font.name for font in fonts.ttflist} & {*CJK_FONTS}:
        # Matplotlib keeps a list of fonts, which may be from before one was installed.
        for path in {*font_manager.findSystemFonts()} - {font.fname for font in fonts.ttflist}:
            with suppress(Exception):  # of a kind that it cannot read
                fonts.addfont(path)
    known = {font.name for font in fonts.ttflist}
    chosen = [name for name in CJK_FONTS if name in known][:1]
    plt.rcParams["font.family"] = [*plt.rcParams["font.family"], *chosen]


@cache
def font_files(families: tuple[str, ...]) -> dict[str, frozenset[int]]:
    """Return the files of families of fonts, each with the letters that it has."""
    found = (font_manager.findfont(font_manager.FontProperties(family=[each])) for each in families)
    return {file: frozenset(font_manager.get_font(file).get_charmap()) for file in found}


def undrawable(text: str) -> list[str]:
    """Return the letters of a text that no font can draw; a font is chosen that can, if any."""

    def missing() -> list[str]:
        known = font_files(tuple(plt.rcParams["font.family"])).values()
        return [c for c in text if c != "\n" and not any(ord(c) in own for own in known)]

    if text.isascii() or not missing():
        return []
    choose_cjk_font()
    return missing()


@cache
def say_no_font() -> None:
    """Say, once, that pictures cannot show all letters."""
    say(
        "pictures show boxes for letters that no font here has: install one that does, for Chinese "
        "Noto Sans CJK"
    )


def plain(text: str) -> str:
    """Return a text so that matplotlib draws it as it is: `$` begins no mathematics.

    What cannot be printed, bytes of a file's name that are no UTF-8 for instance, becomes a mark.
    """
    shown = (c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    text = "".join(shown)
    if undrawable(text):
        say_no_font()
    return text.replace("$", r"\$")


def pillow_font(text: str, size: int = 10) -> ImageFont.FreeTypeFont:
    """Return the font that has the most of a text's letters, for what Pillow writes."""
    if undrawable(text):
        say_no_font()
    files = font_files(tuple(plt.rcParams["font.family"]))
    return ImageFont.truetype(max(files, key=lambda f: sum(ord(c) in files[f] for c in text)), size)


def _cut(text: str, width: float) -> str:
    """Return a text to draw, lines cut to what `width` inches hold in the smallest font."""
    most = max(12, int(72 * width / (LETTER * SMALLEST_FONT)))
    return plain("\n".join(shorten(line, most) for line in text.split("\n")))


# ---------------------------------------------------------------- parts


@singledispatch
def draw_part(part: Part, figure: FigureBase) -> None:
    """Draw a part of a picture into a figure of its size."""
    raise TypeError(f"nothing says how a {type(part).__name__} is drawn")


@draw_part.register
def _draw_grid(grid: Grid, figure: FigureBase) -> None:
    """Draw all images into one axis whose unit is the inch: an axis each takes seconds."""
    layout = grid.layout()
    axis = figure.add_axes((0, 0, 1, 1))
    for tiles, captions, top in zip(grid.tiles, grid.captions(), layout.tops, strict=True):
        for tile, caption, left in zip(tiles, captions, layout.lefts, strict=False):
            shown = _draw_tile(axis, grid, tile, left, top)
            width = grid.width(tile)
            text = {"x": left + width / 2, "ha": "center", "fontsize": layout.font}
            axis.text(y=top - 0.03, s=_cut(caption, width), va="bottom", **text)
            axis.text(y=top + grid.side + 0.03, s=_cut(tile.note, width), va="top", **text)
    for label, top in zip(grid.rows, layout.tops, strict=False):
        axis.text(
            layout.lefts[0] - 0.05, top + grid.side / 2, _cut(label, grid.side), rotation=90,
            fontsize=layout.row_font, ha="right", va="center", multialignment="center",
        )  # fmt: skip
    middle = (layout.lefts[0] + layout.right) / 2
    axis.text(middle, GAP, plain(grid.title), ha="center", va="top", fontsize=TITLE_FONT)
    width, height = grid.size
    axis.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axis.axis("off")
    if grid.colours:
        tall = min(layout.bottom - layout.tops[0], 3)
        place = (layout.right + GAP, (layout.tops[0] + layout.bottom - tall) / 2, 0.12, tall)
        bar = axis.inset_axes(place, transform=axis.transData)
        values = [tile.image for row in grid.tiles for tile in row]
        lower = min(image.min() for image in values) < grid.colours.low
        higher = max(image.max() for image in values) > grid.colours.high
        extend = ("neither", "min", "max", "both")[lower + 2 * higher]
        axis.figure.colorbar(shown, cax=bar, label=plain(grid.colours.label), extend=extend)


def _draw_tile(axis: Axes, grid: Grid, tile: Tile, left: float, top: float) -> Any:
    image, options = tile.image, {}
    if image.ndim == 2:
        colours = grid.colours
        options = {"cmap": colours.name, "vmin": colours.low, "vmax": colours.high}
    elif image.dtype != np.uint8:
        image = np.clip(image, 0, 1)  # sums may round to above 1
    width, (rows, columns) = grid.width(tile), image.shape[:2]
    scale = min(width / columns, grid.side / rows)  # inches a pixel
    corner = left + (width - columns * scale) / 2, top + (grid.side - rows * scale) / 2
    extent = (corner[0], corner[0] + columns * scale, corner[1] + rows * scale, corner[1])
    shown = axis.imshow(image, extent=extent, **options)
    frame = Rectangle((left, top), width, grid.side, fill=False, ec="0.8", linewidth=0.5)
    axis.add_patch(frame)
    taken: list[tuple[float, float, float]] = []  # left, right and bottom of labels
    for mark in tile.marks:
        x, y = ((np.asarray(mark.points) + 0.5) * scale + corner).T
        style = {"marker": "o", "markersize": 7, "markeredgecolor": "black"}
        (line,) = axis.plot(x, y, color=mark.colour, **(style if len(x) == 1 else {}))
        line.set_clip_path(frame)
        if mark.label:
            text = plain(mark.label)
            right = x[0] + LETTER * LABEL_FONT / 72 * letters_in(text)
            bottom = _free(taken, x[0], right, y.min() - 0.02, y.max() + 0.02)
            axis.text(
                x[0], bottom, text, fontsize=LABEL_FONT, va="bottom",
                bbox={"boxstyle": "square,pad=0.1", "fc": mark.colour, "ec": "none"},
            )  # fmt: skip
    return shown


def _free(
    taken: list[tuple[float, float, float]], left: float, right: float, above: float, below: float
) -> float:
    """Return the bottom of a label where no other one is: above, below, or higher; and take it."""
    places = chain((above, below + LABEL_LINE), count(above - LABEL_LINE, -LABEL_LINE))
    bottom = next(
        place for place in places
        if all(left >= end or right <= start or abs(place - own) >= LABEL_LINE
               for start, end, own in taken)
    )  # fmt: skip
    taken.append((left, right, bottom))
    return bottom


@draw_part.register
def _draw_legend(legend: Legend, figure: FigureBase) -> None:
    """Draw a patch of each colour with its name."""
    colours = np.array(list(legend.colours.values())) / 255
    patches = [Patch(facecolor=colour, edgecolor="0.5") for colour in colours]
    style = {"ncols": legend.columns, "fontsize": LEGEND_FONT, "frameon": False}
    figure.legend(patches, [*map(plain, legend.colours)], loc="center", **style)


@draw_part.register
def _draw_scatter(scatter: Scatter, figure: FigureBase) -> None:
    """Draw the points, and each class's number in the middle of its own."""
    axis = figure.subplots()
    colours, markers = colormaps["tab10"].colors, "os^D"
    for label, name in enumerate(scatter.classes):
        own = scatter.points[scatter.labels == label]
        axis.scatter(
            *own.T, s=22, color=colours[label % 10], marker=markers[label // 10 % len(markers)],
            edgecolors="black", linewidths=0.3, label=plain(name),
        )  # fmt: skip
        if len(own):
            axis.annotate(
                label, np.median(own, 0), ha="center", va="center", fontsize=9, weight="bold",
                bbox={"boxstyle": "round,pad=0.15", "alpha": 0.8, "fc": "white"},
            )  # fmt: skip
    axis.set(xlabel=scatter.axes[0], ylabel=scatter.axes[1], xticks=[], yticks=[])
    figure.legend(loc="outside right upper", fontsize=9, ncols=scatter.columns)


@draw_part.register
def _draw_lines(curves: Curves, figure: FigureBase) -> None:
    """Draw the lines, from 0 to at least 1."""
    axis = figure.subplots()
    for index, (name, values) in enumerate(curves.lines.items()):
        style = ("-", "--", ":", "-.")[index // 10 % 4]
        axis.plot(curves.x, values, style, color=f"C{index % 10}", label=plain(name))
    axis.set(xlabel=curves.axes[0], ylabel=curves.axes[1], xlim=(0, None), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, ncols=-(-len(curves.lines) // 22))


@draw_part.register
def _draw_confusion(confusion: Confusion, figure: FigureBase) -> None:
    """Draw the counts; colour shows the share of a row."""
    names = [plain(shorten(name)) for name in confusion.classes]  # ticks keep the font of this time
    axis = figure.subplots()
    # Hundreds of classes are written smaller.
    scale = min(1, (confusion.size[0] - 2) / (0.3 * len(confusion.classes)))
    shares = confusion.counts / np.maximum(confusion.counts.sum(1, keepdims=True), 1)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    style = {"ha": "center", "va": "center", "fontsize": 7 * scale}
    for true, predicted in zip(*np.nonzero(confusion.counts), strict=True):
        colour = "white" if shares[true, predicted] > 0.5 else "black"
        axis.text(predicted, true, confusion.counts[true, predicted], color=colour, **style)
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=8 * scale)
    axis.set_yticks(range(len(names)), names, fontsize=8 * scale)
    axis.set(xlabel="predicted class", ylabel="true class")


# ---------------------------------------------------------------- figures


def draw(picture: Picture) -> Figure:
    """Draw what a picture shows."""
    widths, heights = zip(*(part.size for part in picture.parts), strict=True)
    title = picture.title.split("\n")
    width = max(*widths, LETTER * HEAD_FONT / 72 * longest_line(title) + 2 * GAP)
    head = text_height([picture.title], HEAD_FONT) + GAP
    figure = plt.figure(figsize=(width, sum(heights) + head), layout="constrained")
    figure.suptitle(plain(picture.title), fontsize=HEAD_FONT)
    places = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)
    for part, place in zip(picture.parts, places.flat, strict=True):
        draw_part(part, place)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Save a figure; its folder is made. A LabError says why it cannot be written.

    Args:
        dpi: pixels an inch, of which a large figure has fewer.
    """
    width, height = figure.get_size_inches()
    dpi = min(dpi, LONGEST_SIDE / max(width, height), math.sqrt(MOST_PIXELS / (width * height)))
    with attempt(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=dpi, bbox_inches="tight", pil_kwargs={"quality": 90})


def save_closed(figure: Figure, path: Path) -> None:
    """Save a figure that no window is to show."""
    save_figure(figure, path)
    plt.close(figure)


def publish(figure: Figure, path: Path) -> None:
    """Save a figure (`save_figure`) and say where; its window, if there is a display, waits."""
    save_figure(figure, path)
    say(f"Saved {path}")
    # Without a display, matplotlib falls back to a canvas that belongs to no window.
    if figure.canvas.required_interactive_framework is None:
        plt.close(figure)


def publish_film(film: Film, path: Path) -> None:
    """Save a film that plays over and over, and say where."""
    first, *rest = map(Image.fromarray, film.frames)
    duration = round(1000 * film.seconds)
    with attempt(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        first.save(path, save_all=True, append_images=rest, duration=duration, loop=0)
    say(f"Saved {path}")


def show_figures() -> None:
    """Open the windows of what was published, and wait until they are closed.

    A script's last act, after all is saved and said; without a display it does nothing.
    """
    if plt.get_fignums():
        plt.show()
