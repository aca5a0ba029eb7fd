"""The faces of German traffic signs, made from geometry: strokes, arcs and polygons.

They follow the plates of the German road traffic act (StVO, sign numbers beside each face) and the
letters of DIN 1451. No picture and no font file is read.

    draw_face("stop", 256).show()
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from world.colours import BLACK, BLUE, FADED, GREEN, GREY, RED, WHITE, YELLOW, Colour

Point = tuple[float, float]

# ---------------------------------------------------------------- strokes and glyphs


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> list[Point]:
    """Points of an elliptic arc; degrees clockwise from the right, as y points down."""
    steps = max(2, round(abs(stop - start) / 7.5) + 1)
    angles = np.radians(np.linspace(start, stop, steps))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def regular(sides: int, inradius: float, turn: float, y: float = 0) -> list[Point]:
    """Corners of a regular polygon; the first lies `turn` degrees clockwise from the right."""
    radius = inradius / math.cos(math.pi / sides)
    angles = [math.radians(turn + 360 * k / sides) for k in range(sides)]
    return [(radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def turned(points: Sequence[Point], degrees: float) -> list[Point]:
    """Points turned clockwise about the middle of the plate."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [(c * x - s * y, s * x + c * y) for x, y in points]


def glyph(character: str, w: float, h: float) -> list[list[Point]]:
    """Centre lines of a DIN 1451 character in a box of w x h, the origin at its upper left."""
    r = w / 2
    match character:
        case "0" | "O":
            return [arc(r, r, r, r, 180, 360) + arc(r, h - r, r, r, 0, 180) + [(0, r)]]
        case "1":
            return [[(0.1 * w, 0.22 * h), (0.75 * w, 0.0), (0.75 * w, 1.05 * h)]]
        case "2":
            return [arc(r, r, r, r, 190, 395) + [(0.0, h), (1.04 * w, h)]]
        case "3":
            upper = arc(0.48 * w, 0.25 * h, 0.45 * w, 0.25 * h, 195, 450)
            lower = arc(r, 0.73 * h, r, 0.27 * h, 270, 525)
            return [upper[:-1] + [(0.4 * w, 0.485 * h)], [(0.4 * w, 0.465 * h)] + lower[1:]]
        case "5":
            bowl = arc(r, 0.69 * h, r, 0.31 * h, 222, 520)
            return [[(0.95 * w, 0.0), (0.12 * w, 0.0), (0.1 * w, 0.49 * h)], bowl]
        case "6" | "b":  # both prints of the six: a straight stem, a curved one
            bowl = arc(r, 0.71 * h, r, 0.29 * h, 205, 565)
            if character == "b":
                return [bowl, [(0.0, 0.71 * h)] + arc(r, 0.3 * h, r, 0.3 * h, 180, 325)]
            return [bowl, [(0.02 * w, 0.66 * h), (0.12 * w, 0.46 * h), (0.66 * w, -0.05 * h)]]
        case "7":
            return [[(0.0, 0.0), (w, 0.0), (0.28 * w, 1.05 * h)]]
        case "8":
            upper = arc(r, 0.235 * h, 0.44 * w, 0.235 * h, 90, 450)
            return [upper, arc(r, 0.73 * h, r, 0.27 * h, 270, 630)]
        case "H":
            stems = [[(x, -0.05 * h), (x, 1.05 * h)] for x in (0.0, w)]
            return [*stems, [(0.0, 0.5 * h), (w, 0.5 * h)]]
        case "S":
            upper = arc(r, 0.25 * h, 0.47 * w, 0.25 * h, 335, 120)
            return [upper + arc(r, 0.74 * h, r, 0.26 * h, 300, 515)]
        case "T":
            return [[(-0.1 * w, 0.0), (1.1 * w, 0.0)], [(r, 0.0), (r, 1.05 * h)]]
        case "P":
            bowl = arc(0.55 * w, 0.27 * h, 0.45 * w, 0.27 * h, 270, 450)
            return [[(0.0, 1.05 * h), (0.0, 0.0)] + bowl + [(0.0, 0.54 * h)]]
    raise ValueError(f"no glyph for {character!r}")


class Pen:
    """Draws on a square RGBA image in sign units: x right and y down, the plate in [-1, 1]."""

    SUPERSAMPLE = 4  # ImageDraw does not smooth edges; shrinking does

    def __init__(self, size: int):
        side = size * self.SUPERSAMPLE
        self.scale = side / 2
        self.image = Image.new("RGBA", (side, side), (*GREY, 0))
        self.draw = ImageDraw.Draw(self.image)

    def pixels(self, points: Sequence[Point]) -> list[Point]:
        return [((x + 1) * self.scale, (y + 1) * self.scale) for x, y in points]

    def polygon(self, points: Sequence[Point], colour: Colour, radius: float = 0) -> None:
        """Filled polygon, grown by `radius` with round corners."""
        self.draw.polygon(self.pixels(points), fill=colour)
        if radius:
            self.stroke([*points, points[0]], 2 * radius, colour)

    def disc(self, x: float, y: float, radius: float, colour: Colour) -> None:
        box = self.pixels([(x - radius, y - radius), (x + radius, y + radius)])
        self.draw.ellipse(box, fill=colour)

    def stroke(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """Line of constant width through points; its ends are blunt, a closed line has none."""
        line = self.pixels(points)
        self.draw.line(line, fill=colour, width=round(width * self.scale), joint="curve")
        if math.dist(points[0], points[-1]) < 1e-9:
            self.disc(*points[0], width / 2, colour)

    def write(
        self, text: str, width: float, height: float, gap: float, weight: float, colour: Colour
    ) -> None:
        """Centred text; width and height are of one character's centre lines."""
        advances = [width * (0.65 if c == "1" else 1.0) + gap for c in text]
        x = -(sum(advances) - gap) / 2
        for character, advance in zip(text, advances, strict=True):
            for line in glyph(character, advance - gap, height):
                self.stroke([(x + px, py - height / 2) for px, py in line], weight, colour)
            x += advance

    def arrow(self, path: list[Point], width: float, head: float, filled: bool) -> None:
        """White arrow along a path: an open chevron as on today's plates, or a solid older head."""
        (x0, y0), (x1, y1) = path[-2:]
        length = math.hypot(x1 - x0, y1 - y0)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length  # where the arrow points

        def at(along: float, across: float) -> Point:
            return x1 + along * ux - across * uy, y1 + along * uy + across * ux

        if filled:
            self.stroke(path[:-1] + [at(-head * 0.7, 0)], width, WHITE)
            self.polygon([at(0, 0), at(-head, head * 0.75), at(-head, -head * 0.75)], WHITE)
        else:
            thick = width * 1.4  # of a wing, along the arrow
            self.stroke(path[:-1] + [at(-thick / 2, 0)], width, WHITE)
            for side in (head * 0.7, -head * 0.7):
                tip, back = at(-head * 0.8, side), at(-head * 0.8 - thick, side)
                self.polygon([at(0, 0), tip, back, at(-thick, 0)], WHITE)

    def finish(self) -> Image.Image:
        return self.image.reduce(self.SUPERSAMPLE)


# ---------------------------------------------------------------- the 43 faces


class Look(NamedTuple):
    """How one maker prints a plate."""

    rim: float  # white edge outside the colour
    band: float  # coloured border
    scale: float  # size of the pictogram
    weight: float  # width of its strokes


LOOKS = (
    Look(rim=0.04, band=0.25, scale=1.0, weight=1.0),
    Look(rim=0.06, band=0.20, scale=1.06, weight=0.92),
    Look(rim=0.02, band=0.28, scale=0.94, weight=1.05),
)


def round_plate(pen: Pen, look: Look, colour: Colour, inside: Colour | None = None) -> None:
    pen.disc(0, 0, 0.98, WHITE)
    pen.disc(0, 0, 0.98 - look.rim, colour)
    if inside:
        pen.disc(0, 0, 0.98 - look.rim - look.band, inside)


def triangle_plate(pen: Pen, look: Look, turn: float = -90) -> None:
    """Equilateral triangle, one corner towards `turn`, its bounding box in the middle."""
    y = -0.28 * math.sin(math.radians(turn))
    inside = look.rim + look.band * 0.62
    for inset, radius, colour in ((0, 0.07, WHITE), (look.rim, 0.07, RED), (inside, 0.02, WHITE)):
        pen.polygon(regular(3, 0.56 - inset - radius, turn, y), colour, radius)


def speed_limit(pen: Pen, look: Look, alt: int, text: str) -> None:  # 274
    # Width, height and weight of the digits: regular, condensed, extended, large and bold.
    spread, tall, bold = ((1, 1, 1), (0.9, 1.05, 1.15), (1.1, 0.95, 0.9), (1.1, 1.1, 1.2))[alt]
    text = text.replace("6", "b") if alt % 2 else text
    spread, tall = spread * look.scale, 0.66 * tall * look.scale
    width, gap, weight = (0.33, 0.19, 0.12) if len(text) == 2 else (0.24, 0.17, 0.105)
    pen.write(text, width * spread, tall, gap * spread, weight * bold * look.weight, BLACK)


def car(pen: Pen, look: Look, x: float, s: float, colour: Colour) -> None:
    """A car seen from behind, `x` beside the middle."""

    def at(px: float, py: float) -> Point:
        return s * (x + px), s * py

    body = [at(-0.25, 0), at(0.25, 0), at(0.25, 0.13), at(-0.25, 0.13)]
    roof = [at(-0.2, 0.01), at(-0.13, -0.17), at(0.13, -0.17), at(0.2, 0.01)]
    pen.polygon(body, colour)
    pen.stroke(roof, 0.04 * look.weight, colour)
    for wheel in (-0.17, 0.17):
        pen.stroke([at(wheel, 0.1), at(wheel, 0.2)], 0.1, colour)


def abreast(pen: Pen, look: Look, s: float, truck: bool, left: Colour, right: Colour) -> None:
    """A lorry or a car, and a car to its right."""
    if truck:
        box = [(-0.62, -0.36), (-0.1, -0.36), (-0.1, 0.13), (-0.62, 0.13)]
        pen.polygon([(s * x, s * y) for x, y in box], left)
        for wheel in (-0.52, -0.2):
            pen.stroke([(s * wheel, s * 0.1), (s * wheel, s * 0.2)], 0.13, left)
    else:
        car(pen, look, -0.32, s, left)
    car(pen, look, 0.32, s, right)


def no_overtaking(pen: Pen, look: Look, alt: int, truck: bool) -> None:  # 276, 277 by trucks
    abreast(pen, look, look.scale * (0.92 if alt else 1.0), truck, RED, BLACK)


def no_trucks(pen: Pen, look: Look, alt: int) -> None:  # 253
    k = look.scale * (0.9 if alt else 1.0)
    load = [(-0.14, -0.27), (0.57, -0.27), (0.57, 0.12), (-0.14, 0.12)]
    cab = [(-0.19, 0.16), (-0.55, 0.16), (-0.55, 0.02), (-0.44, -0.15), (-0.19, -0.15)]
    frame = [(-0.5, 0.15), (0.5, 0.15), (0.5, 0.2), (-0.5, 0.2)]
    window = [(-0.47, 0), (-0.4, -0.1), (-0.3, -0.1), (-0.3, 0)]
    for points, colour in ((load, BLACK), (cab, BLACK), (frame, BLACK), (window, WHITE)):
        pen.polygon([(k * x, k * y) for x, y in points], colour)
    for wheel in (-0.38, 0.2, 0.42):
        pen.disc(k * wheel, k * 0.2, 0.095 * k, BLACK)


def priority_crossing(pen: Pen, look: Look, alt: int) -> None:  # 301
    k, w = look.scale, (0.135 if alt else 0.11) * look.weight
    shoulder = w * (1.5 if alt else 1.25)
    half = [(shoulder, -0.06), (w, -0.04), (w * 1.25, 0.53), (0, 0.43)]
    outline = [(0, -0.28), *half, *((-x, y) for x, y in half[-2::-1])]
    pen.polygon([(k * x, 0.19 + k * (y - 0.15)) for x, y in outline], BLACK)
    pen.stroke([(-0.28 * k, 0.23), (0.28 * k, 0.23)], 0.08 * look.weight, BLACK)


def priority_road(pen: Pen, look: Look, alt: int) -> None:  # 306
    border = FADED if alt == 2 else WHITE  # an old one is hardly brighter than what is behind it
    pen.polygon(regular(4, 0.66 - 0.08, 0), BLACK if alt == 1 else border, 0.08)
    pen.polygon(regular(4, 0.64 - 0.08, 0), border, 0.08)
    inner = 0.36 * look.scale
    pen.polygon(regular(4, inner, 0), BLACK)
    pen.polygon(regular(4, inner - 0.015 * (1 + alt % 2), 0), YELLOW)


def give_way(pen: Pen, look: Look, alt: int) -> None:  # 205
    triangle_plate(pen, look, 90)


def stop(pen: Pen, look: Look, alt: int) -> None:  # 206
    pen.polygon(regular(8, 0.96, 22.5), WHITE)
    pen.polygon(regular(8, 0.96 - 0.04 - look.rim, 22.5), RED)
    height = (0.62 if alt else 0.54) * look.scale
    pen.write("STOP", 0.23 * look.scale, height, 0.16, 0.105 * look.weight, WHITE)


def no_entry(pen: Pen, look: Look, alt: int) -> None:  # 267
    round_plate(pen, look, RED)
    w, h = 0.74 * look.scale, 0.15 * look.weight
    pen.polygon([(-w, -h), (w, -h), (w, h), (-w, h)], WHITE)


def general_caution(pen: Pen, look: Look, alt: int) -> None:  # 101
    k, y = (0.86, 0.27) if alt else (0.94, 0.25)
    top, low = 0.085 * k * look.weight, 0.045 * k * look.weight
    bar = [(-top, -0.48), (top, -0.48), (low, 0.1), (-low, 0.1)]
    pen.polygon([(x, y + k * along) for x, along in bar], BLACK)
    pen.disc(0, y - 0.48 * k, top, BLACK)
    pen.disc(0, y + 0.27 * k, 0.09 * k * look.weight, BLACK)


def curve(pen: Pen, look: Look, alt: int, side: int) -> None:  # 103-10 left, 103-20 right
    outer = arc(0.02, 0.22, 0.32, 0.3, 180, 285)
    inner = arc(0.06, 0.3, 0.18, 0.22, 275, 180)
    tip = [(0.26, -0.08), (0.4, 0.05), (0.2, 0.12)]
    points = [(-0.3, 0.54), *outer, *tip, *inner, (-0.12, 0.54), (-0.21, 0.5)]
    k = look.scale * (0.76 if alt else 0.86)
    pen.polygon([(side * k * x, 0.3 + k * (y - 0.25)) for x, y in points], BLACK)


def bumpy_road(pen: Pen, look: Look, alt: int) -> None:  # 112
    k, radius, rise = look.scale, *((0.2, 0.24) if alt else (0.16, 0.18))
    humps = [p for x in (-0.2, 0.2) for p in arc(x, 0.5, radius, rise, 180, 360)]
    pen.polygon([(k * x, y) for x, y in [(-0.46, 0.57), *humps, (0.46, 0.57)]], BLACK)


def road_narrows(pen: Pen, look: Look, alt: int) -> None:  # 121-10
    w, k = 0.1 * look.weight, look.scale
    bend = 0.16 if alt else 0.08
    left = [(-0.14, -0.12), (-0.14, 0.54)]
    right = [(0.07, -0.12), (0.07, 0.14 - bend), (0.22, 0.22 + bend), (0.22, 0.54)]
    for line in (left, right):
        pen.stroke([(k * x, 0.2 + k * (y - 0.2)) for x, y in line], w, BLACK)


def traffic_signals(pen: Pen, look: Look, alt: int) -> None:  # 131
    if alt:
        pen.polygon([(-0.08, -0.15), (0.08, -0.15), (0.08, 0.44), (-0.08, 0.44)], BLACK, 0.04)
    radius = (0.1 if alt else 0.105) * look.scale
    for y, colour in ((-0.14, RED), (0.145, YELLOW), (0.43, GREEN)):
        pen.disc(0, y, radius, colour)


def turn(pen: Pen, look: Look, alt: int, side: int) -> None:  # 209-10 left, 209-20 right
    k = look.scale
    path = (
        [(-0.22, 0.62), *arc(0.13, 0.05, 0.35, 0.35, 180, 270), (0.62, -0.3)],
        [(-0.48, 0.46), *arc(0.0, 0.3, 0.48, 0.42, 180, 270), (0.76, -0.12)],
        [(-0.2, 0.62), *arc(0.2, 0.1, 0.4, 0.4, 180, 262), (0.62, -0.36)],
    )[alt]
    width, head = ((0.18, 0.4), (0.26, 0.46), (0.2, 0.48))[alt]
    path = [(side * k * x, k * y) for x, y in path]
    pen.arrow(path, width * look.weight, head * k, filled=alt == 1)


def ahead_only(pen: Pen, look: Look, alt: int, degrees: Sequence[float]) -> None:  # 209-30, 222
    k = look.scale
    path = turned([(0, 0.68 * k), (0, -0.1), (0, -0.7 * k)], degrees[alt])
    width, head = ((0.18, 0.42), (0.2, 0.52), (0.22, 0.56))[alt]
    pen.arrow(path, width * look.weight, head, filled=alt == 1)


def roundabout(pen: Pen, look: Look, alt: int) -> None:  # 215
    radius = 0.55 * look.scale
    for k in range(3):
        tip = 120 * k - (50, 80, 115)[alt]
        # The head lies on a chord, so that it follows the ring instead of its tangent.
        path = arc(0, 0, radius, radius, tip + 92, tip + 30) + arc(0, 0, radius, radius, tip, tip)
        pen.arrow(path[:-1], 0.13 * look.weight, 0.3, filled=False)


def ahead_or_turn(pen: Pen, look: Look, alt: int, side: int) -> None:  # 214-20 right, 214-10 left
    k, filled = look.scale, alt == 1
    width, head = ((0.15, 0.32), (0.17, 0.36), (0.17, 0.38))[alt]
    stem, level = -0.2 * side, (0.08, 0.14, 0.02)[alt]
    branch = [(stem, 0.66), *arc(stem + 0.22 * side, level + 0.2, 0.22 * side, 0.2, 180, 260)]
    for path in ([(stem, 0.7), (stem, -0.68)], [*branch, (0.66 * side, level)]):
        pen.arrow([(k * x, k * y) for x, y in path], width * look.weight, head * k, filled)


def end_of(pen: Pen, look: Look, alt: int, what: str) -> None:  # 278, 280, 281, 282
    """A prohibition, and black lines over it: five fine ones, or one band of them as from afar."""
    pen.disc(0, 0, 0.98, FADED)
    pen.disc(0, 0, 0.98 - 0.5 * look.rim - 0.01, WHITE)
    k = look.scale
    if what.isdecimal():
        pen.write(what, 0.36 * k, 0.72 * k, 0.2 * k, 0.14 * look.weight, FADED)
    elif what != "all":
        abreast(pen, look, k, what == "no overtaking by trucks", FADED, FADED)
    offsets, width, colour = ((0,), 0.3, FADED) if alt else ((-0.2, -0.1, 0, 0.1, 0.2), 0.05, BLACK)
    for offset in offsets:
        half = math.sqrt(0.9**2 - offset**2)
        pen.stroke(turned([(-half, offset), (half, offset)], -45), width * look.weight, colour)


class Brush(NamedTuple):
    """Draws a black pictogram in a warning triangle; `k` times its size, about (0, 0.2)."""

    pen: Pen
    k: float
    weight: float

    def place(self, points: Sequence[Point]) -> list[Point]:
        return [(self.k * x, 0.2 + self.k * (y - 0.2)) for x, y in points]

    def line(self, *points: Point, width: float = 0.08) -> None:
        """A stroke with round ends."""
        placed = self.place(points)
        self.pen.stroke(placed, width * self.weight, BLACK)
        for x, y in (placed[0], placed[-1]):
            self.pen.disc(x, y, width * self.weight / 2, BLACK)

    def area(self, *points: Point) -> None:
        self.pen.polygon(self.place(points), BLACK)

    def disc(self, x: float, y: float, radius: float) -> None:
        self.pen.disc(*self.place([(x, y)])[0], self.k * radius, BLACK)

    def person(self, x: float, y: float, s: float, stride: float) -> None:
        """A person who walks to the left, `s` tall, the feet at y."""

        def at(px: float, py: float) -> Point:
            return x + s * px, y + s * (py - 1)

        self.disc(*at(0, 0.09), 0.1 * s)
        self.line(at(0, 0.28), at(0, 0.54), width=0.2 * s)
        for side in (-1, 1):
            foot = at(side * stride, 0.97)
            self.line(at(0, 0.54), at(side * stride * 0.55, 0.75), foot, width=0.11 * s)
            elbow, hand = at(side * stride, 0.42), at(side * stride - 0.06, 0.55)
            self.line(at(0, 0.25), elbow, hand, width=0.08 * s)


def warning(pen: Pen, look: Look, alt: int, k: float = 0.98) -> Brush:
    """A brush for pictograms that keep clear of the border, as printed ones do."""
    return Brush(pen, look.scale * k * (0.9 if alt else 1.0), look.weight)


def double_curve(pen: Pen, look: Look, alt: int) -> None:  # 105-10
    brush = warning(pen, look, alt)
    width = 0.12 if alt else 0.15
    brush.line((0.14, 0.5), (0.14, 0.2), (-0.1, 0.22), (-0.12, -0.08), width=width)
    brush.line((0.14, 0.22), (-0.1, 0.18), width=width)


def slippery_road(pen: Pen, look: Look, alt: int) -> None:  # 114
    brush = warning(pen, look, alt)

    def tilted(*points: Point) -> list[Point]:
        return [(x, y + 0.12) for x, y in turned(points, 14 if alt else 9)]

    brush.area(*tilted((-0.27, 0.0), (0.27, 0.0), (0.27, 0.17), (-0.27, 0.17)))
    brush.line(*tilted((-0.22, 0.0), (-0.14, -0.17), (0.14, -0.17), (0.22, 0.0)), width=0.05)
    for x in (-0.19, 0.19):
        brush.line(*tilted((x, 0.12), (x, 0.22)), width=0.1)
    for x in (-0.26, 0.06):  # a track that swings from side to side
        sway = [(x + 0.07 * math.sin(5 * k), 0.38 + 0.18 * k) for k in np.linspace(0, 1, 9)]
        brush.line(*sway, (x + 0.2, 0.57), width=0.045)


def road_works(pen: Pen, look: Look, alt: int) -> None:  # 123
    brush = warning(pen, look, alt)
    brush.disc(0.07, -0.11, 0.08)
    brush.line((-0.05, -0.03), (-0.15, 0.06), (-0.2, 0.22), width=0.13)
    brush.line((-0.2, 0.24), (-0.23, 0.4), (-0.31, 0.56), width=0.085)
    brush.line((-0.18, 0.24), (-0.08, 0.38), (-0.09, 0.56), width=0.085)
    brush.line((-0.03, -0.02), (0.02, 0.14), (-0.08, 0.22), width=0.065)
    brush.line((-0.14, 0.16), (0.14, 0.42), width=0.045)
    brush.area((0.0, 0.59), (0.15, 0.42), (0.28, 0.36), (0.46, 0.59))


def pedestrians(pen: Pen, look: Look, alt: int) -> None:  # 133, an older print with a crossing
    brush = warning(pen, look, alt)
    brush.person(0.0, 0.54, 0.82, 0.2)
    if alt:
        for x in (-0.42, -0.2, 0.2, 0.42):
            brush.area((x - 0.05, 0.48), (x + 0.05, 0.48), (x + 0.07, 0.56), (x - 0.07, 0.56))


def children(pen: Pen, look: Look, alt: int) -> None:  # 136
    brush = warning(pen, look, alt)

    for x, s in ((0.08, 1.0), (-0.26, 0.66)):  # both run to the left, their feet at y

        def at(px: float, py: float, x: float = x, s: float = s) -> Point:
            return x + s * px, 0.57 + s * (py - 0.57)

        brush.disc(*at(-0.04, -0.07), 0.08 * s)
        brush.line(at(-0.02, 0.06), at(0.01, 0.24), width=0.13 * s)
        brush.line(at(-0.02, 0.04), at(-0.12, 0.1), at(-0.21, 0.15), width=0.06 * s)
        brush.line(at(-0.02, 0.04), at(0.09, 0.1), at(0.19, 0.09), width=0.06 * s)
        brush.line(at(0.0, 0.26), at(-0.05, 0.42), at(-0.04, 0.57), width=0.085 * s)
        brush.line(at(0.01, 0.26), at(0.13, 0.36), at(0.26, 0.41), width=0.08 * s)


def bicycles(pen: Pen, look: Look, alt: int) -> None:  # 138
    brush = warning(pen, look, alt, 0.88)
    thin = 0.045 if alt else 0.055
    for x in (-0.26, 0.26):
        brush.line(*arc(x, 0.36, 0.19, 0.19, 0, 360), width=thin)
    saddle, pedal, bar = (-0.1, 0.06), (-0.02, 0.36), (0.18, 0.08)
    brush.line((-0.26, 0.36), saddle, pedal, bar, width=thin)
    brush.line((-0.26, 0.36), pedal, width=thin)
    brush.line((-0.09, 0.12), (0.19, 0.12), width=thin)
    brush.line((0.26, 0.36), (0.16, 0.0), (0.08, -0.02), width=thin)
    brush.line((-0.17, 0.03), (-0.04, 0.03), width=thin)


def snow(pen: Pen, look: Look, alt: int) -> None:  # 101-51
    brush = warning(pen, look, alt, 0.92)
    for degrees in range(30, 390, 60):

        def at(along: float, across: float, degrees: int = degrees) -> Point:
            x, y = turned([(along, across)], degrees)[0]
            return x, y + 0.2

        brush.line(at(0, 0), at(0.33, 0), width=0.065)
        for side in (-0.1, 0.1):
            brush.line(at(0.17, 0), at(0.27, side), width=0.055)


def wild_animals(pen: Pen, look: Look, alt: int) -> None:  # 142-10
    brush = warning(pen, look, alt, 0.85)
    back = (-0.2, 0.02), (0.1, 0.16), (0.3, 0.24), (0.34, 0.34)
    brush.area(*back, (0.2, 0.4), (-0.02, 0.34), (-0.18, 0.26))
    brush.line((-0.16, 0.14), (-0.24, -0.06), (-0.33, -0.02), width=0.1)
    brush.line((-0.22, -0.1), (-0.18, -0.24), (-0.26, -0.3), width=0.045)
    brush.line((-0.2, -0.1), (-0.08, -0.2), width=0.045)
    for knee, hoof in (((-0.32, 0.3), (-0.22, 0.42)), ((-0.22, 0.36), (-0.1, 0.46))):
        brush.line((-0.14, 0.24), knee, hoof, width=0.06)
    for knee, hoof in (((0.42, 0.44), (0.38, 0.57)), ((0.32, 0.46), (0.48, 0.56))):
        brush.line((0.27, 0.3), knee, hoof, width=0.065)


# What the faces of a category of the German Traffic Sign Detection Benchmark are printed on.
GROUNDS = {
    "prohibitory": partial(round_plate, colour=RED, inside=WHITE),
    "mandatory": partial(round_plate, colour=BLUE),
    "danger": triangle_plate,
}
# Category, drawing function of what is on the plate, how many forms of it the streets hold and its
# arguments; in the order of the German Traffic Sign Recognition Benchmark.
FACES: dict[str, tuple[str, Callable[..., None], int, dict]] = {
    "speed_limit_20": ("prohibitory", speed_limit, 4, {"text": "20"}),
    "speed_limit_30": ("prohibitory", speed_limit, 4, {"text": "30"}),
    "speed_limit_50": ("prohibitory", speed_limit, 4, {"text": "50"}),
    "speed_limit_60": ("prohibitory", speed_limit, 4, {"text": "60"}),
    "speed_limit_70": ("prohibitory", speed_limit, 4, {"text": "70"}),
    "speed_limit_80": ("prohibitory", speed_limit, 4, {"text": "80"}),
    "end_of_speed_limit_80": ("other", end_of, 2, {"what": "80"}),
    "speed_limit_100": ("prohibitory", speed_limit, 4, {"text": "100"}),
    "speed_limit_120": ("prohibitory", speed_limit, 4, {"text": "120"}),
    "no_overtaking": ("prohibitory", no_overtaking, 2, {"truck": False}),
    "no_overtaking_by_trucks": ("prohibitory", no_overtaking, 2, {"truck": True}),
    "priority_crossing": ("danger", priority_crossing, 2, {}),
    "priority_road": ("other", priority_road, 3, {}),
    "give_way": ("other", give_way, 1, {}),
    "stop": ("other", stop, 2, {}),
    "no_vehicles": ("prohibitory", lambda *plain: None, 1, {}),
    "no_trucks": ("prohibitory", no_trucks, 2, {}),
    "no_entry": ("other", no_entry, 1, {}),
    "general_caution": ("danger", general_caution, 2, {}),
    "curve_left": ("danger", curve, 2, {"side": -1}),
    "curve_right": ("danger", curve, 2, {"side": 1}),
    "double_curve": ("danger", double_curve, 2, {}),
    "bumpy_road": ("danger", bumpy_road, 2, {}),
    "slippery_road": ("danger", slippery_road, 2, {}),
    "road_narrows": ("danger", road_narrows, 2, {}),
    "road_works": ("danger", road_works, 2, {}),
    "traffic_signals": ("danger", traffic_signals, 2, {}),
    "pedestrians": ("danger", pedestrians, 2, {}),
    "children": ("danger", children, 2, {}),
    "bicycles": ("danger", bicycles, 2, {}),
    "snow": ("danger", snow, 2, {}),
    "wild_animals": ("danger", wild_animals, 2, {}),
    "end_of_limits": ("other", end_of, 2, {"what": "all"}),
    "turn_right": ("mandatory", turn, 3, {"side": 1}),
    "turn_left": ("mandatory", turn, 3, {"side": -1}),
    "ahead_only": ("mandatory", ahead_only, 3, {"degrees": (0, 0, 0)}),
    "ahead_or_right": ("mandatory", ahead_or_turn, 3, {"side": 1}),
    "ahead_or_left": ("mandatory", ahead_or_turn, 3, {"side": -1}),
    "keep_right": ("mandatory", ahead_only, 3, {"degrees": (135, 135, 130)}),
    "keep_left": ("mandatory", ahead_only, 3, {"degrees": (-135, -135, -130)}),
    "roundabout": ("mandatory", roundabout, 3, {}),
    "end_of_no_overtaking": ("other", end_of, 2, {"what": "no overtaking"}),
    "end_of_no_overtaking_by_trucks": ("other", end_of, 2, {"what": "no overtaking by trucks"}),
}


def category(name: str) -> str:
    """ "mandatory", "danger", "other" or "prohibitory": what the benchmark counts a face to."""
    return FACES[name][0]


def num_variants(name: str) -> int:
    """How many different plates of one face `draw_face` knows."""
    return len(LOOKS) * FACES[name][2]


@cache
def draw_face(name: str, size: int, variant: int = 0) -> Image.Image:
    """Clean face as a size x size RGBA image, transparent outside the plate; made once, so shared.

    `variant` in [0, num_variants(name)) chooses the print: borders, strokes, arrow heads.
    """
    if not 0 <= variant < num_variants(name):
        raise ValueError(f"{name} has no variant {variant}")
    kind, draw, _, arguments = FACES[name]
    pen, look = Pen(size), LOOKS[variant % len(LOOKS)]
    if kind in GROUNDS:
        GROUNDS[kind](pen, look)
    draw(pen, look, variant // len(LOOKS), **arguments)
    return pen.finish()
