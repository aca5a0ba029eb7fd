"""Draws German traffic signs: the data set that needs no download.

Every image is made from geometry: strokes, arcs and polygons after the plates of the German road
traffic act (StVO, sign numbers beside each face) and the letters of DIN 1451, then photographed by
a small model of a car's camera. No picture and no font file is read.

    draw_face(12, 256).show()                            # a clean stop sign, RGBA
    draw_sign(12, np.random.default_rng(0)).show()       # the same sign on a November afternoon
    draw_dataset(Path("data/signs"))                     # train/ val/ test/ CLASS/ NNNNN.jpg
"""

import io
import math
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

SPLITS = {"train": 500, "val": 50, "test": 50}  # images per class

WHITE = (238, 238, 236)
BLACK = (24, 24, 26)
GREY = (150, 150, 150)
RED = (196, 28, 36)
BLUE = (16, 82, 180)
YELLOW = (245, 178, 24)
GREEN = (0, 140, 90)

Point = tuple[float, float]
Colour = tuple[int, int, int]


# ---------------------------------------------------------------------------------------------
# Strokes and glyphs
# ---------------------------------------------------------------------------------------------


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

    def finish(self) -> Image.Image:
        return self.image.reduce(self.SUPERSAMPLE)


def arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> list[Point]:
    """Points of an elliptic arc; degrees clockwise from the right, as y points down."""
    steps = max(2, round(abs(stop - start) / 7.5) + 1)
    angles = np.radians(np.linspace(start, stop, steps))
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


def regular(sides: int, inradius: float, turn: float, x: float = 0, y: float = 0) -> list[Point]:
    """Corners of a regular polygon; the first lies `turn` degrees clockwise from the right."""
    radius = inradius / math.cos(math.pi / sides)
    angles = [math.radians(turn + 360 * k / sides) for k in range(sides)]
    return [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]


def mirrored(points: Sequence[Point]) -> list[Point]:
    return [(-x, y) for x, y in points]


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
        case "S":
            upper = arc(r, 0.25 * h, 0.47 * w, 0.25 * h, 335, 120)
            return [upper + arc(r, 0.74 * h, r, 0.26 * h, 300, 515)]
        case "T":
            return [[(-0.1 * w, 0.0), (1.1 * w, 0.0)], [(r, 0.0), (r, 1.05 * h)]]
        case "P":
            bowl = arc(0.55 * w, 0.27 * h, 0.45 * w, 0.27 * h, 270, 450)
            return [[(0.0, 1.05 * h), (0.0, 0.0)] + bowl + [(0.0, 0.54 * h)]]
    raise ValueError(f"no glyph for {character!r}")


def write(
    pen: Pen, text: str, width: float, height: float, gap: float, weight: float, colour: Colour
) -> None:
    """Centred text; width and height are of one character's centre lines."""
    advances = [width * (0.65 if c == "1" else 1.0) + gap for c in text]
    x = -(sum(advances) - gap) / 2
    for character, advance in zip(text, advances, strict=True):
        for line in glyph(character, advance - gap, height):
            pen.stroke([(x + px, py - height / 2) for px, py in line], weight, colour)
        x += advance


def arrow(pen: Pen, path: list[Point], width: float, head: float, filled: bool) -> None:
    """White arrow along a path: an open chevron as on today's plates, or a solid older head."""
    (x0, y0), (x1, y1) = path[-2:]
    length = math.hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length, (y1 - y0) / length  # where the arrow points

    def at(along: float, across: float) -> Point:
        return x1 + along * ux - across * uy, y1 + along * uy + across * ux

    if filled:
        pen.stroke(path[:-1] + [at(-head * 0.7, 0)], width, WHITE)
        pen.polygon([at(0, 0), at(-head, head * 0.75), at(-head, -head * 0.75)], WHITE)
    else:
        thick = width * 1.4  # of a wing, along the arrow
        pen.stroke(path[:-1] + [at(-thick / 2, 0)], width, WHITE)
        for side in (head * 0.7, -head * 0.7):
            wing = [at(0, 0), at(-head * 0.8, side), at(-head * 0.8 - thick, side), at(-thick, 0)]
            pen.polygon(wing, WHITE)


# ---------------------------------------------------------------------------------------------
# The 26 faces
# ---------------------------------------------------------------------------------------------


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
    for inset, radius, colour in (
        (0, 0.07, WHITE),
        (look.rim, 0.07, RED),
        (look.rim + look.band * 0.62, 0.02, WHITE),
    ):
        pen.polygon(regular(3, 0.56 - inset - radius, turn, 0, y), colour, radius)


def speed_limit(pen: Pen, look: Look, alt: int, text: str) -> None:  # 274
    round_plate(pen, look, RED, WHITE)
    # Width, height and weight of the digits: regular, condensed, extended, large and bold.
    spread, tall, bold = ((1, 1, 1), (0.9, 1.05, 1.15), (1.1, 0.95, 0.9), (1.1, 1.1, 1.2))[alt]
    text = text.replace("6", "b") if alt % 2 else text
    spread, tall = spread * look.scale, 0.66 * tall * look.scale
    width, gap, weight = (0.33, 0.19, 0.12) if len(text) == 2 else (0.24, 0.17, 0.105)
    write(pen, text, width * spread, tall, gap * spread, weight * bold * look.weight, BLACK)


def no_overtaking(pen: Pen, look: Look, alt: int) -> None:  # 276
    round_plate(pen, look, RED, WHITE)
    s = look.scale * (0.92 if alt else 1.0)
    for x, colour in ((-0.32, RED), (0.32, BLACK)):

        def at(px: float, py: float, x: float = x) -> Point:
            return s * (x + px), s * py

        body = [at(-0.25, 0), at(0.25, 0), at(0.25, 0.13), at(-0.25, 0.13)]
        roof = [at(-0.2, 0.01), at(-0.13, -0.17), at(0.13, -0.17), at(0.2, 0.01)]
        pen.polygon(body, colour)
        pen.stroke(roof, 0.04 * look.weight, colour)
        for wheel in (-0.17, 0.17):
            pen.stroke([at(wheel, 0.1), at(wheel, 0.2)], 0.1, colour)


def priority_crossing(pen: Pen, look: Look, alt: int) -> None:  # 301
    triangle_plate(pen, look)
    k, w = look.scale, 0.105 * look.weight
    shoulder = w * (1.7 if alt else 1.25)
    half = [(shoulder, -0.06), (w, -0.04), (w * 1.25, 0.53), (0, 0.43)]
    outline = [(0, -0.28), *half, *reversed(mirrored(half[:-1]))]
    pen.polygon([(k * x, 0.15 + k * (y - 0.15)) for x, y in outline], BLACK)
    pen.stroke([(-0.29 * k, 0.18), (0.29 * k, 0.18)], 0.08 * look.weight, BLACK)


def priority_road(pen: Pen, look: Look, alt: int) -> None:  # 306
    pen.polygon(regular(4, 0.66 - 0.08, 0), BLACK if alt else WHITE, 0.08)
    pen.polygon(regular(4, 0.64 - 0.08, 0), WHITE, 0.08)
    inner = 0.36 * look.scale
    pen.polygon(regular(4, inner, 0), BLACK)
    pen.polygon(regular(4, inner - 0.015 * (1 + alt), 0), YELLOW)


def give_way(pen: Pen, look: Look, alt: int) -> None:  # 205
    triangle_plate(pen, look, 90)


def stop(pen: Pen, look: Look, alt: int) -> None:  # 206
    pen.polygon(regular(8, 0.96, 22.5), WHITE)
    pen.polygon(regular(8, 0.96 - 0.04 - look.rim, 22.5), RED)
    height = (0.62 if alt else 0.54) * look.scale
    write(pen, "STOP", 0.23 * look.scale, height, 0.16, 0.105 * look.weight, WHITE)


def no_vehicles(pen: Pen, look: Look, alt: int) -> None:  # 250
    round_plate(pen, look, RED, WHITE)


def no_entry(pen: Pen, look: Look, alt: int) -> None:  # 267
    round_plate(pen, look, RED)
    w, h = 0.74 * look.scale, 0.15 * look.weight
    pen.polygon([(-w, -h), (w, -h), (w, h), (-w, h)], WHITE)


def general_caution(pen: Pen, look: Look, alt: int) -> None:  # 101
    triangle_plate(pen, look)
    k = 1.15 if alt else 1.0
    top, low = 0.085 * k * look.weight, 0.045 * k * look.weight
    bar = [(-top, -0.28), (top, -0.28), (low, 0.3), (-low, 0.3)]
    pen.polygon([(x, 0.2 + k * (y - 0.2)) for x, y in bar], BLACK)
    pen.disc(0, 0.2 - 0.48 * k, top, BLACK)
    pen.disc(0, 0.2 + 0.27 * k, 0.09 * k * look.weight, BLACK)


def curve(pen: Pen, look: Look, alt: int, side: int) -> None:  # 103-10 left, 103-20 right
    triangle_plate(pen, look)
    outer = arc(0.02, 0.22, 0.32, 0.3, 180, 285)
    inner = arc(0.06, 0.3, 0.18, 0.22, 275, 180)
    tip = [(0.26, -0.08), (0.4, 0.05), (0.2, 0.12)]
    points = [(-0.3, 0.54), *outer, *tip, *inner, (-0.12, 0.54), (-0.21, 0.5)]
    k = look.scale * (0.82 if alt else 0.95)
    pen.polygon([(side * k * x, 0.3 + k * (y - 0.25)) for x, y in points], BLACK)


def bumpy_road(pen: Pen, look: Look, alt: int) -> None:  # 112
    triangle_plate(pen, look)
    k, radius, rise = look.scale, *((0.2, 0.24) if alt else (0.16, 0.18))
    humps = [p for x in (-0.2, 0.2) for p in arc(x, 0.5, radius, rise, 180, 360)]
    pen.polygon([(k * x, y) for x, y in [(-0.46, 0.57), *humps, (0.46, 0.57)]], BLACK)


def road_narrows(pen: Pen, look: Look, alt: int) -> None:  # 121-10
    triangle_plate(pen, look)
    w, k = 0.1 * look.weight, look.scale
    bend = 0.16 if alt else 0.08
    left = [(-0.14, -0.12), (-0.14, 0.54)]
    right = [(0.07, -0.12), (0.07, 0.14 - bend), (0.22, 0.22 + bend), (0.22, 0.54)]
    for line in (left, right):
        pen.stroke([(k * x, 0.2 + k * (y - 0.2)) for x, y in line], w, BLACK)


def traffic_signals(pen: Pen, look: Look, alt: int) -> None:  # 131
    triangle_plate(pen, look)
    if alt:
        pen.polygon([(-0.08, -0.12), (0.08, -0.12), (0.08, 0.46), (-0.08, 0.46)], BLACK, 0.04)
    radius = (0.12 if alt else 0.13) * look.scale
    for y, colour in ((-0.11, RED), (0.17, YELLOW), (0.45, GREEN)):
        pen.disc(0, y, radius, colour)


def turn(pen: Pen, look: Look, alt: int, side: int) -> None:  # 209-10 left, 209-20 right
    round_plate(pen, look, BLUE)
    k = look.scale
    path = (
        [(-0.22, 0.62), *arc(0.13, 0.05, 0.35, 0.35, 180, 270), (0.62, -0.3)],
        [(-0.48, 0.46), *arc(0.0, 0.3, 0.48, 0.42, 180, 270), (0.76, -0.12)],
        [(-0.2, 0.62), *arc(0.2, 0.1, 0.4, 0.4, 180, 262), (0.62, -0.36)],
    )[alt]
    width, head = ((0.18, 0.4), (0.26, 0.46), (0.2, 0.48))[alt]
    path = [(side * k * x, k * y) for x, y in path]
    arrow(pen, path, width * look.weight, head * k, filled=alt == 1)


def ahead_only(pen: Pen, look: Look, alt: int, degrees: float = 0) -> None:  # 209-30
    round_plate(pen, look, BLUE)
    k = look.scale
    path = turned([(0, 0.68 * k), (0, -0.1), (0, -0.7 * k)], degrees)
    arrow(pen, path, (0.18, 0.2, 0.22)[alt] * look.weight, (0.42, 0.52, 0.56)[alt], filled=alt == 1)


def keep_right(pen: Pen, look: Look, alt: int) -> None:  # 222-20
    ahead_only(pen, look, alt, (135, 135, 130)[alt])


def roundabout(pen: Pen, look: Look, alt: int) -> None:  # 215
    round_plate(pen, look, BLUE)
    radius = 0.55 * look.scale
    for k in range(3):
        tip = 120 * k - (50, 80, 115)[alt]
        # The head lies on a chord, so that it follows the ring instead of its tangent.
        path = arc(0, 0, radius, radius, tip + 92, tip + 30) + arc(0, 0, radius, radius, tip, tip)
        arrow(pen, path[:-1], 0.13 * look.weight, 0.3, filled=False)


# Class name -> drawing function, how many forms of it the streets hold, its arguments.
FACES: dict[str, tuple[Callable[..., None], int, dict]] = {
    "speed_limit_20": (speed_limit, 4, {"text": "20"}),
    "speed_limit_30": (speed_limit, 4, {"text": "30"}),
    "speed_limit_50": (speed_limit, 4, {"text": "50"}),
    "speed_limit_60": (speed_limit, 4, {"text": "60"}),
    "speed_limit_70": (speed_limit, 4, {"text": "70"}),
    "speed_limit_80": (speed_limit, 4, {"text": "80"}),
    "speed_limit_100": (speed_limit, 4, {"text": "100"}),
    "speed_limit_120": (speed_limit, 4, {"text": "120"}),
    "no_overtaking": (no_overtaking, 2, {}),
    "priority_crossing": (priority_crossing, 2, {}),
    "priority_road": (priority_road, 2, {}),
    "give_way": (give_way, 1, {}),
    "stop": (stop, 2, {}),
    "no_vehicles": (no_vehicles, 1, {}),
    "no_entry": (no_entry, 1, {}),
    "general_caution": (general_caution, 2, {}),
    "curve_left": (curve, 2, {"side": -1}),
    "curve_right": (curve, 2, {"side": 1}),
    "bumpy_road": (bumpy_road, 2, {}),
    "road_narrows": (road_narrows, 2, {}),
    "traffic_signals": (traffic_signals, 2, {}),
    "turn_right": (turn, 3, {"side": 1}),
    "turn_left": (turn, 3, {"side": -1}),
    "ahead_only": (ahead_only, 3, {}),
    "keep_right": (keep_right, 3, {}),
    "roundabout": (roundabout, 3, {}),
}
CLASSES = tuple(f"{label:02d}_{name}" for label, name in enumerate(FACES))


def num_variants(label: int) -> int:
    """How many different plates of one class `draw_face` knows."""
    return len(LOOKS) * FACES[CLASSES[label][3:]][1]


def draw_face(label: int, size: int, variant: int = 0) -> Image.Image:
    """Clean face of class `label` as a size x size RGBA image, transparent outside the plate.

    `variant` in [0, num_variants(label)) chooses the print: borders, strokes, arrow heads.
    """
    face, alternatives, arguments = FACES[CLASSES[label][3:]]
    if not 0 <= variant < len(LOOKS) * alternatives:
        raise ValueError(f"class {CLASSES[label]} has no variant {variant}")
    pen = Pen(size)
    face(pen, LOOKS[variant % len(LOOKS)], variant // len(LOOKS), **arguments)
    return pen.finish()


# ---------------------------------------------------------------------------------------------
# Backgrounds
# ---------------------------------------------------------------------------------------------

SCENE = 72  # pixels; scenes are drawn at this size and seen by sensors of 15 to 64
TEXTURES = 16


@cache
def noise_textures() -> np.ndarray:
    """(TEXTURES, 2 SCENE, 2 SCENE) fractal noise, mean 0, deviation 1, from fine to cloudy."""
    rng = np.random.default_rng(0)
    side = 2 * SCENE
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = np.inf
    textures = []
    for slope in np.linspace(0.7, 2.2, TEXTURES):
        spectrum = np.fft.fft2(rng.standard_normal((side, side))) * frequency**-slope
        texture = np.fft.ifft2(spectrum).real
        textures.append((texture - texture.mean()) / texture.std())
    return np.asarray(textures, np.float32)


def noise(rng: np.random.Generator, smooth: bool = False) -> np.ndarray:
    """(SCENE, SCENE) window of a texture, mean near 0, deviation near 1."""
    k, y, x = rng.integers((TEXTURES // 2 if smooth else 0, 0, 0), (TEXTURES, SCENE, SCENE))
    return noise_textures()[k, y : y + SCENE, x : x + SCENE]


# Pairs of colours between which a texture moves: leaves, branches, walls, asphalt, skies.
PALETTES = (
    ((12, 14, 10), (70, 80, 45)),
    ((25, 22, 15), (150, 110, 60)),
    ((10, 12, 10), (190, 190, 120)),
    ((20, 20, 24), (240, 240, 245)),
    ((40, 38, 36), (90, 85, 80)),
    ((110, 100, 90), (190, 175, 160)),
    ((110, 60, 45), (165, 100, 80)),
    ((70, 75, 85), (130, 140, 150)),
    ((120, 150, 200), (215, 230, 250)),
    ((225, 225, 225), (255, 255, 255)),
    ((190, 190, 195), (250, 250, 255)),
    ((8, 8, 10), (30, 30, 34)),
)


def backdrop(rng: np.random.Generator) -> np.ndarray:
    """(SCENE, SCENE, 3) uint8: two textured regions, buildings, branches, poles."""
    first, second = rng.integers(0, len(PALETTES), 2)
    pixels = textured(rng, first)
    if rng.random() < 0.5:  # a skyline, a wall's edge
        slope, offset = rng.normal(0, 0.6), rng.normal(0, 12)
        ramp = np.arange(SCENE, dtype=np.float32) - SCENE / 2
        edge = ramp[:, None] - slope * ramp[None] - offset + rng.uniform(0, 6) * noise(rng)
        other = edge > 0 if rng.random() < 0.5 else edge.T > 0
        pixels = np.where(other[..., None], textured(rng, second), pixels)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 7)):  # windows, boards, cars
        x, y, w, h = rng.uniform(-0.2, 1, 4) * SCENE
        colour = tuple(rng.integers(0, 256, 3) // 2 + rng.integers(0, 128))
        if rng.random() < 0.5:
            draw.rectangle((x, y, x + abs(w) / 2, y + abs(h) / 2), fill=colour)
        else:
            draw.line((x, y, x + w, y + h), fill=colour, width=int(rng.integers(1, 6)))
    return np.asarray(image)


def textured(rng: np.random.Generator, palette: int) -> np.ndarray:
    dark, light = np.asarray(PALETTES[palette], np.float32)
    mix = np.clip(0.5 + rng.uniform(0.1, 0.6) * noise(rng), 0, 1)[..., None]
    return (dark + (light - dark) * mix).astype(np.uint8)


def neighbours(
    rng: np.random.Generator, scene: Image.Image, x: float, y: float, radius: float
) -> None:
    """Draws the pole, and often a second plate above or below the sign at x, y."""
    draw = ImageDraw.Draw(scene)
    if rng.random() < 0.6:
        half, grey = rng.uniform(0.04, 0.12) * radius, int(rng.integers(30, 200))
        top = -SCENE if rng.random() < 0.3 else y
        draw.rectangle((x - half, top, x + half, 2 * SCENE), fill=(grey, grey, grey))
    for side in (-1, 1):
        kind = rng.random()
        if kind < 0.15:
            w, gap = rng.uniform(0.6, 1.2) * radius, rng.uniform(0.95, 1.2) * radius
            edge = y + side * gap
            plate = (x - w, min(edge, edge + side * radius), x + w, max(edge, edge + side * radius))
            draw.rectangle(plate, fill=WHITE, outline=BLACK)
        elif kind < 0.3:
            label = int(rng.integers(len(CLASSES)))
            other = cached_face(label, 0)
            diameter = round(2 * radius * rng.uniform(0.9, 1.1))
            other = other.resize((diameter, diameter), Image.Resampling.BILINEAR)
            corner = (x - diameter / 2, y - diameter / 2 + side * rng.uniform(1.8, 2.2) * radius)
            scene.paste(other, (round(corner[0]), round(corner[1])), other)


# ---------------------------------------------------------------------------------------------
# The camera
# ---------------------------------------------------------------------------------------------

GAMMA = 2.2
LINEAR = (np.arange(256, dtype=np.float32) / 255) ** GAMMA  # uint8 -> linear light


@cache
def cached_face(label: int, variant: int) -> Image.Image:
    return draw_face(label, SCENE, variant)


def view(
    rng: np.random.Generator, x: float, y: float, radius: float, tall: float
) -> tuple[float, ...]:
    """Eight coefficients for Image.transform: a plate turned, tilted and seen in perspective.

    The plate's middle lies at x, y; `radius` is half its width, `tall` stretches its height.
    """
    roll, skew = rng.normal(0, 0.07), rng.normal(0, 0.05)
    narrow = 1 - abs(rng.normal(0, 0.1))
    stretch = math.exp(rng.normal(0, 0.06))
    c, s = math.cos(roll), math.sin(roll)
    half = SCENE / 2
    to_unit = np.array([[1 / half, 0, -1], [0, 1 / half, -1], [0, 0, 1]])
    tilt = np.array([[narrow, skew, 0], [0, stretch, 0], [*rng.normal(0, 0.06, 2), 1]])
    place = np.array(
        [[radius * c, -radius * s, x], [radius * s * tall, radius * c * tall, y], [0, 0, 1]]
    )
    matrix = np.linalg.inv(place @ tilt @ to_unit)
    return tuple((matrix / matrix[2, 2]).ravel()[:8])


def lens(size: int, sigma: float, shift: float) -> np.ndarray:
    """(size, SCENE) matrix that blurs one axis of a scene and samples it to `size` pixels.

    As a product of matrices blur, shift and resampling cost one multiplication an axis.
    """
    step = SCENE / size
    centres = (np.arange(size) + 0.5) * step + shift * step
    distance = (np.arange(SCENE) + 0.5)[None] - centres[:, None]
    weights = np.exp(-0.5 * (distance / (sigma * step)) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def shade(rng: np.random.Generator) -> np.ndarray | float:
    """Light that falls on the scene, (SCENE, SCENE, 1) in (0, 1]: shadows, leaves, a gradient."""
    kind = rng.random()
    if kind < 0.5:
        return 1.0
    depth = rng.uniform(0.1, 0.8)
    ramp = np.linspace(-1, 1, SCENE, dtype=np.float32)
    slope = math.tan(rng.uniform(-1.4, 1.4))
    plane = (ramp[:, None] + slope * ramp[None] - rng.normal(0, 0.4)) / math.hypot(1, slope)
    if kind < 0.65:  # the edge of a shadow
        light = np.clip(plane * rng.uniform(2, 12), 0, 1)
    elif kind < 0.8:  # sun through leaves
        light = np.clip(noise(rng) * rng.uniform(1, 4) + 0.5, 0, 1)
    else:
        light = np.clip(plane * 0.5 + 0.5, 0, 1)
    return 1 - depth * (1 - light[..., None])


def wear(rng: np.random.Generator, face: np.ndarray) -> np.ndarray:
    """Fading, dirt and reflections on a plate; linear light in and out."""
    if rng.random() < 0.2:
        face = face + rng.uniform(0, 0.3) * (rng.uniform(0.2, 0.7) - face)
    if rng.random() < 0.25:  # the sun bleaches red to orange and blue to grey
        bleached = face.max(axis=-1, keepdims=True) - face
        face = face + bleached * rng.uniform((0, 0, 0), (0.2, 0.65, 0.3)).astype(np.float32)
    if rng.random() < 0.3:
        dirt = np.clip(noise(rng) - rng.uniform(0.3, 1.5), 0, 1)[..., None]
        face = face * (1 - rng.uniform(0.2, 0.8) * dirt)
    if rng.random() < 0.2:  # stickers
        for _ in range(rng.integers(1, 4)):
            part = rng.uniform((0.2, 0.2, 0.03, 0.03), (0.8, 0.8, 0.16, 0.25))
            y, x, h, w = (part * SCENE).astype(int)
            face[y : y + h, x : x + w] = rng.uniform(0.1, 1, 3)
    if rng.random() < 0.2:
        glare = np.clip(noise(rng, smooth=True) - rng.uniform(0, 1.5), 0, 1)[..., None]
        face = face + rng.uniform(0.1, 0.8) * glare
    return face


def expose(rng: np.random.Generator, scene: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lens, shutter and sensor: (SCENE, SCENE, 3) linear light -> (*size, 3) uint8."""
    if rng.random() < 0.3:  # motion: the mean of the scene along a short path
        dy, dx = rng.normal(0, 3, 2)
        path = np.linspace(-0.5, 0.5, 5)
        scene = sum(np.roll(scene, (round(t * dy), round(t * dx)), (0, 1)) for t in path) / 5
    sigma = rng.uniform(0.35, 0.6) if rng.random() < 0.8 else rng.uniform(0.6, 1.3)
    rows, columns = (lens(n, sigma, 0.0) for n in size)
    planes = np.ascontiguousarray(scene.transpose(2, 0, 1))  # (3, SCENE, SCENE)
    light = rows @ planes @ columns.T  # (3, *size)
    if rng.random() < 0.5:  # colour fringes: the lens bends red and blue apart
        for channel in (0, 2):
            rows, columns = (lens(n, sigma, rng.normal(0, 0.3)) for n in size)
            light[channel] = rows @ planes[channel] @ columns.T
    light = light.transpose(1, 2, 0)
    haze = rng.uniform(0.0, 0.03) if rng.random() < 0.85 else rng.uniform(0.03, 0.5)
    light = light + haze * light.mean()
    grain = rng.uniform(0.002, 0.015) * rng.standard_normal(light.shape, np.float32)
    light = np.clip(light, 0, 1) ** (1 / GAMMA) + grain
    pixels = (np.clip(light, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.04:  # the two fields of an interlaced frame, apart
        pixels[1::2] = np.roll(pixels[1::2], 1, axis=1)
    return pixels


def misread(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A fault of the camera in about a fifth of the frames: the colour filter read one step off.

    Red plates turn green and blue ones red; rarely the other way round, or only below some row.
    """
    kind = rng.random()
    if kind < 0.17:
        return np.roll(pixels, 1, axis=2)
    if kind < 0.19:
        return np.roll(pixels, -1, axis=2)
    if kind < 0.21:
        row = int(rng.integers(pixels.shape[0]))
        return np.concatenate([pixels[:row], np.roll(pixels[row:], 1, axis=2)])
    return pixels


# ---------------------------------------------------------------------------------------------
# Photographs and data sets
# ---------------------------------------------------------------------------------------------


def draw_sign(label: int, rng: np.random.Generator) -> Image.Image:
    """One photograph of class `label`: an RGB crop of 25 to 64 pixels a side around the sign."""
    size = int(np.clip(25 + rng.gamma(2.0, 10), 25, 64))
    left, top, right, bottom = cached_face(label, 0).getbbox()
    tall = (right - left) / (bottom - top)  # photographs are cut to the plate, and so is the scene
    margin = max(0.1, 5 / size) * rng.uniform(0.3, 1.3)
    radius = SCENE * (0.5 - margin)
    x, y = SCENE / 2 + rng.normal(0, 0.035, 2) * SCENE

    background = Image.fromarray(backdrop(rng))
    neighbours(rng, background, x, y, radius)
    plate = cached_face(label, int(rng.integers(num_variants(label)))).transform(
        (SCENE, SCENE), Image.Transform.PERSPECTIVE, view(rng, x, y, radius, tall),
        Image.Resampling.BILINEAR,
    )  # fmt: skip
    plate = np.asarray(plate)
    alpha = plate[..., 3:] * np.float32(1 / 255)
    face = wear(rng, LINEAR.take(plate[..., :3]))

    brightness = min(max(math.exp(rng.normal(math.log(0.65), 0.65)), 0.07), 1.8) ** GAMMA
    # Background against sign; a bright sky behind a plate leaves it dark.
    contrast = math.exp(rng.normal(-0.5, 0.8) if rng.random() < 0.8 else rng.normal(1.3, 1))
    cast = np.exp(rng.normal(0, 0.1, 3) + rng.normal(0, 0.15) * np.array([1, 0, -1]))
    scene = face * (alpha * shade(rng)) + LINEAR.take(background) * (contrast * (1 - alpha))
    scene = scene * (brightness * cast).astype(np.float32)

    shape = size * np.array([1, tall]) / math.sqrt(tall) * np.exp(rng.normal(0, 0.02, 2))
    height, width = np.clip(np.round(shape), 25, 64).astype(int).tolist()
    # Far signs fill few pixels of the sensor and are enlarged.
    scale = 1.0 if rng.random() < 0.8 else rng.uniform(15, 26) / max(height, width)
    pixels = expose(rng, scene, (round(height * scale), round(width * scale)))
    image = Image.fromarray(misread(rng, pixels))
    if scale != 1:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.3:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(rng.integers(30, 90)))
        image = Image.open(file).convert("RGB")
    return image


class Chunk(NamedTuple):
    """Images [start, stop) of one class in one split: the unit of work of a process."""

    folder: Path
    seed: int
    split: int
    label: int
    start: int
    stop: int


CHUNK = 25


def draw_chunk(chunk: Chunk) -> int:
    """Writes one chunk; each image has a stream of its own, so that workers do not matter."""
    for index in range(chunk.start, chunk.stop):
        stream = np.random.SeedSequence((chunk.seed, chunk.split, chunk.label, index))
        image = draw_sign(chunk.label, np.random.default_rng(stream))
        image.save(chunk.folder / f"{index:05d}.jpg", quality=90)
    return chunk.stop - chunk.start


def die_with_parent() -> None:
    """Ends a worker whose parent was killed; it would wait for work for ever."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def is_alive(pid: int) -> bool:
    if os.name == "nt":  # there signal 0 would end the process; keep its folder instead
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def map_chunks(chunks: Sequence[Chunk], workers: int) -> Iterator[int]:
    if workers == 1:
        yield from map(draw_chunk, chunks)
        return
    # 'spawn' behaves the same on every system and beside the threads of torch.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=die_with_parent)
    try:
        yield from pool.map(draw_chunk, chunks)
    finally:
        pool.shutdown(cancel_futures=True)


def draw_dataset(
    root: Path,
    seed: int = 0,
    per_class: Mapping[str, int] = SPLITS,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> None:
    """Draws root/{split}/{class}/NNNNN.jpg; the same seed gives the same bytes.

    per_class: images a class in each split. workers: processes, one a core if None.
    progress: called with the number of images finished since its last call.

    The splits appear at the end and train last: a train folder means a complete data set, after a
    kill as well. Existing splits are never touched: FileExistsError.
    """
    root = Path(root)
    for split in per_class:
        if (root / split).exists():
            raise FileExistsError(f"{root / split} exists; remove it to draw the signs again")
    for leftover in root.glob(".drawing-[0-9]*"):
        if not is_alive(int(leftover.name.rsplit("-", 1)[1])):
            shutil.rmtree(leftover)

    drawing = root / f".drawing-{os.getpid()}"
    chunks = [
        Chunk(drawing / split / name, seed, number, label, start, min(start + CHUNK, count))
        for number, (split, count) in enumerate(per_class.items())
        for label, name in enumerate(CLASSES)
        for start in range(0, count, CHUNK)
    ]
    try:
        for folder in {chunk.folder for chunk in chunks}:
            folder.mkdir(parents=True)
        for done in map_chunks(chunks, workers or os.cpu_count() or 1):
            progress(done)
        for split in sorted(per_class, key="train".__eq__):
            (drawing / split).rename(root / split)
    finally:
        shutil.rmtree(drawing)
