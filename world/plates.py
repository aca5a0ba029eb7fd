"""Plates of a German street that are none of the benchmark's 43 signs.

Round, triangular, red or blue as well: what a network must learn to leave alone.
"""

from collections.abc import Callable
from functools import cache, partial

from PIL import Image

from world.colours import BLACK, BLUE, GREEN, RED, WHITE, YELLOW, Colour
from world.faces import FACES, LOOKS, Brush, Look, Pen, draw_face, regular, round_plate, turned


def square(pen: Pen, colour: Colour, width: float = 0.96, height: float = 0.96) -> None:
    corners = [(-width, -height), (width, -height), (width, height), (-width, height)]
    pen.polygon(corners, WHITE)
    pen.polygon([(x - 0.05 * x / width, y - 0.05 * y / height) for x, y in corners], colour)


def no_stopping(pen: Pen, look: Look, lines: int) -> None:  # 283 with two lines, 286 with one
    round_plate(pen, look, RED, BLUE)
    for degrees in (45, -45)[:lines]:
        bar = turned([(-0.74, 0), (0.74, 0)], degrees)
        pen.stroke(bar, 0.18 * look.weight, RED)


def weight_limit(pen: Pen, look: Look) -> None:  # 262
    round_plate(pen, look, RED, WHITE)
    pen.write("55", 0.24, 0.5, 0.3, 0.11, BLACK)
    pen.disc(0, 0.27, 0.07, BLACK)


def bicycle(pen: Pen, look: Look, rim: Colour, ground: Colour, ink: Colour) -> None:  # 254, 237
    round_plate(pen, look, rim, ground)
    for x in (-0.32, 0.32):
        pen.disc(x, 0.14, 0.24, ink)
        pen.disc(x, 0.14, 0.17, ground)
    frame = [(-0.32, 0.14), (-0.12, -0.24), (0.2, -0.24), (0.0, 0.14), (-0.12, -0.24)]
    pen.stroke(frame, 0.06, ink)
    pen.stroke([(0.32, 0.14), (0.16, -0.36), (0.06, -0.36)], 0.06, ink)


def foot_path(pen: Pen, look: Look) -> None:  # 239
    round_plate(pen, look, BLUE)
    pen.disc(-0.08, -0.52, 0.13, WHITE)
    pen.polygon([(-0.26, -0.34), (0.06, -0.34), (0.14, 0.66), (-0.36, 0.66)], WHITE)
    pen.disc(0.28, -0.12, 0.1, WHITE)
    pen.polygon([(0.18, 0.02), (0.38, 0.02), (0.42, 0.66), (0.16, 0.66)], WHITE)


def zebra(pen: Pen, look: Look) -> None:  # 350
    square(pen, BLUE)
    pen.polygon([(0, -0.78), (0.76, 0.62), (-0.76, 0.62)], WHITE)
    Brush(pen, 0.9, 1.0).person(0.0, 0.55, 0.85, 0.22)


def parking(pen: Pen, look: Look) -> None:  # 314
    square(pen, BLUE)
    pen.write("P", 0.5, 1.1, 0, 0.22, WHITE)


def bus_stop(pen: Pen, look: Look) -> None:  # 224
    pen.disc(0, 0, 0.98, GREEN)
    pen.disc(0, 0, 0.84, YELLOW)
    pen.write("H", 0.5, 0.8, 0, 0.16, GREEN)


def one_way(pen: Pen, look: Look) -> None:  # 220
    square(pen, BLUE, 0.96, 0.36)
    pen.arrow([(-0.75, 0), (0, 0), (0.8, 0)], 0.14, 0.3, filled=True)


def dead_end(pen: Pen, look: Look) -> None:  # 357
    square(pen, BLUE)
    pen.polygon([(-0.14, -0.2), (0.14, -0.2), (0.14, 0.8), (-0.14, 0.8)], WHITE)
    pen.polygon([(-0.5, -0.55), (0.5, -0.55), (0.5, -0.25), (-0.5, -0.25)], RED)


def chevrons(pen: Pen, look: Look) -> None:  # 625
    square(pen, WHITE, 0.96, 0.3)
    half = [(-0.1, -0.25), (0.2, -0.25), (0.4, 0)]
    for middle in (-0.7, -0.1, 0.5):
        points = [*half, (0.2, 0.25), (-0.1, 0.25), (0.1, 0)]
        pen.polygon([(middle + x, y) for x, y in points], RED)


def beacon(pen: Pen, look: Look) -> None:  # 605
    square(pen, WHITE, 0.24, 0.96)
    for y in (-0.75, -0.2, 0.35):
        pen.polygon([(-0.2, y + 0.2), (0.2, y - 0.1), (0.2, y + 0.2), (-0.2, y + 0.5)], RED)


def hydrant(pen: Pen, look: Look) -> None:
    pen.polygon([(-0.9, -0.7), (0.9, -0.7), (0.9, 0.7), (-0.9, 0.7)], RED)
    pen.polygon([(-0.8, -0.6), (0.8, -0.6), (0.8, 0.6), (-0.8, 0.6)], WHITE)
    pen.write("H50", 0.24, 0.7, 0.16, 0.1, BLACK)


def badge(pen: Pen, look: Look, colour: Colour, sides: int) -> None:
    """A shop's, a brand's: a disc or a polygon of one colour with something bright in it."""
    pen.polygon(regular(sides, 0.9 if sides > 4 else 0.62, 90), colour)
    pen.stroke(turned([(-0.35, 0.1), (0, -0.3), (0.35, 0.1)], 20 * sides), 0.16, WHITE)


def board(pen: Pen, look: Look) -> None:
    """What a zone's limit is printed on, above the word."""
    square(pen, BLACK, 0.72, 0.98)
    pen.polygon([(-0.64, -0.9), (0.64, -0.9), (0.64, 0.9), (-0.64, 0.9)], WHITE)
    for x in (-0.42, -0.14, 0.14, 0.42):
        pen.stroke([(x, 0.6), (x, 0.8)], 0.16 * look.weight, BLACK)


def direction(pen: Pen, look: Look, colour: Colour, ink: Colour, lines: int) -> None:
    """Names of towns as they look from afar, and an arrow."""
    height = 0.3 * lines
    square(pen, ink, 0.98, height + 0.03)
    square(pen, colour, 0.94, height)
    for k in range(lines):
        y = height * (2 * (k + 0.5) / lines - 1)
        for x, length in ((-0.45, 0.3), (0.0, 0.22), (0.35, 0.4)):
            pen.stroke([(x, y), (x + length, y)], 0.16, ink)
        pen.stroke([(-0.8, y + 0.12), (-0.68, y - 0.12), (-0.56, y + 0.12)], 0.06, ink)


PLATES: dict[str, Callable[[Pen, Look], None]] = {
    "no_stopping": partial(no_stopping, lines=2),
    "no_parking": partial(no_stopping, lines=1),
    "weight_limit": weight_limit,
    "no_bicycles": partial(bicycle, rim=RED, ground=WHITE, ink=BLACK),
    "cycle_path": partial(bicycle, rim=BLUE, ground=BLUE, ink=WHITE),
    "foot_path": foot_path, "zebra": zebra, "parking": parking, "bus_stop": bus_stop,
    "one_way": one_way, "dead_end": dead_end, "chevrons": chevrons, "beacon": beacon,
    "hydrant": hydrant,
    "red_badge": partial(badge, colour=RED, sides=24),
    "blue_badge": partial(badge, colour=BLUE, sides=24),
    "yellow_badge": partial(badge, colour=YELLOW, sides=24),
    "red_triangle": partial(badge, colour=RED, sides=3),
    "blue_direction": partial(direction, colour=BLUE, ink=WHITE, lines=2),
    "yellow_direction": partial(direction, colour=YELLOW, ink=BLACK, lines=2),
    "white_direction": partial(direction, colour=WHITE, ink=BLACK, lines=1),
    "board": board,
    "panel": partial(direction, colour=WHITE, ink=BLACK, lines=1),
}  # fmt: skip


@cache
def draw_plate(name: str, size: int, look: int = 0) -> Image.Image:
    """A clean face or other plate as `draw_face` gives it; the others have looks 0 to 2."""
    if name in FACES:
        return draw_face(name, size, look)
    pen = Pen(size)
    PLATES[name](pen, LOOKS[look])
    return pen.finish()
