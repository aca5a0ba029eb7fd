"""Houses, fences, guard rails and what advertises on them."""

import math

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw

from world.canvas import BUILDING, FENCE, POLE, SIGN, Canvas, Piece, patches, rings, upright
from world.colours import BLUE, GLASS, WHITE, Colour, bright, lit
from world.scene import Thing

ROOFS = ((120, 60, 44), (70, 66, 66), (96, 50, 40), (54, 54, 58))
PALE, STONE = (225, 222, 214), (210, 200, 188)
STEEL = (130, 132, 132)
NEAREST = 1.0  # metres: a wall that reaches beside the camera begins here


def along(thing: Thing) -> tuple[float, float]:
    """z at which something along the road begins and ends, as far as it lies ahead."""
    return max(thing.z, NEAREST), max(thing.z + thing.length, 1.5 * NEAREST)


def house(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    near, far = along(thing)
    rough = tuple(rng.uniform(0.05, 0.3, 3).tolist())
    surface = canvas.surface(BUILDING, (near + far) / 2, rough)
    side = 1 if thing.x > 0 else -1
    x, outer, h = thing.x, thing.x + side * thing.width, thing.height
    if rng.random() < 0.7:
        colour, top = ROOFS[rng.integers(len(ROOFS))], h + rng.uniform(1.5, 4.5)
        ridge = (x + outer) / 2
        slope = [(x, h, near), (x, h, far), (ridge, top, far), (ridge, top, near)]
        canvas.polygon(slope, lit(colour, rng.uniform(0.5, 1.2)), surface)
        gable = [(x, h, near), (outer, h, near), (ridge, top, near)]
        canvas.polygon(gable, lit(thing.colour, 0.7), surface)
        if rng.random() < 0.5:
            z = near + rng.uniform(0.2, 0.8) * (far - near)
            canvas.polygon(upright(ridge, z, 0.7, top - 0.6, top + 1), ROOFS[2], surface)
    street = np.array([(x, 0, near), (x, 0, far), (x, h, far), (x, h, near)])
    front = np.array([(x, 0, near), (outer, 0, near), (outer, h, near), (x, h, near)])
    for wall, length in ((street, far - near), (front, thing.width)):
        facade(canvas, rng, wall, length, thing.colour, surface)
    if rng.random() < 0.25:  # a shop's sign across the pavement
        z, low = near + rng.uniform(0, 1) * (far - near), rng.uniform(2.5, 3.5)
        board = upright(x - side * 0.6, z, rng.uniform(0.5, 1), low, low + rng.uniform(0.4, 1.6))
        advertise(canvas, rng, board, canvas.surface(SIGN, z))


def facade(
    canvas: Canvas, rng: Generator, wall: np.ndarray, length: float, colour: Colour, surface: int
) -> None:
    """A wall, `length` metres long, with windows, and a door or a shop below."""
    light, height = rng.uniform(0.35, 1.2), float(wall[3, 1])
    floors, columns = max(1, round(height / 3)), max(1, round(length / rng.uniform(2, 4)))
    wide, tall = rng.uniform(0.3, 0.6) / columns, rng.uniform(0.4, 0.65) / floors
    shop = rng.random() < 0.3 and floors > 1
    framed, barred, sky = rng.random(3) < (0.7, 0.5, 0.6)
    frame = lit(PALE if rng.random() < 0.6 else bright(rng), light)
    glass = [lit(GLASS[k], 0.9) for k in rng.integers(len(GLASS), size=floors * columns)]

    pieces: list[Piece] = [((0, 0, 1, 1), lit(colour, light))]
    for floor in range(int(shop), floors):
        for column in range(columns):
            x, y = (column + 0.5) / columns, (floor + 0.5) / floors
            left, right, low, high = x - wide / 2, x + wide / 2, y - tall / 2, y + tall / 2
            if framed:
                a, b = 0.12 * wide, 0.08 * tall
                pieces.append(((left - a, low - b, right + a, high + b), frame))
            shown = glass[0] if sky else glass[floor * columns + column]  # one sky in all panes
            pieces.append(((left, low, right, high), shown))
            if barred:
                pieces.append(((x - 0.05 * wide, low, x + 0.05 * wide, high), frame))
    if shop:
        top = 0.72 / floors
        pieces.append(((0.02, 0, 0.98, top), lit(GLASS[rng.integers(4)], light)))
        paint, count = lit(bright(rng), light), max(1, columns // 2)
        pieces += [((k / count, 0, k / count + 0.03, top), paint) for k in range(count)]
    elif rng.random() < 0.6:
        x = rng.uniform(0.1, 0.8)
        door = (x, 0, min(1, x + 1 / length), 2.2 / height)
        pieces.append((door, lit(bright(rng), 0.5 * light)))
    if rng.random() < 0.3:  # cornices
        edges = (np.arange(1, floors + 1) / floors).tolist()
        pieces += [((0, y - 0.01, 1, y + 0.01), lit(STONE, light)) for y in edges]
    canvas.paint(wall, pieces, surface)
    if shop:
        board = patches(wall, [(0.02, 0.72 / floors, 0.98, 0.98 / floors)])[0]
        advertise(canvas, rng, board, surface)


def advertise(canvas: Canvas, rng: Generator, board: np.ndarray, surface: int) -> None:
    """A board with letters; and with discs, triangles and diamonds, as adverts and shops have."""
    ink, count, start = bright(rng), int(rng.integers(2, 8)), rng.uniform(0.05, 0.4)
    step = (0.95 - start) / count
    pieces: list[Piece] = [((0, 0, 1, 1), bright(rng))]
    for k in range(count):
        left = start + k * step
        high = rng.uniform(0.55, 0.75)
        pieces.append(((left, 0.3, left + rng.uniform(0.4, 0.8) * step, high), ink))
    canvas.paint(board, pieces, surface)
    if rng.random() < 0.5:
        x, y, radius = rng.uniform((0.2, 0.3, 0.1), (0.8, 0.7, 0.3)).tolist()
        corners = (3, 4, 12)[rng.integers(3)]
        shapes = [rings(board, x, y, (k * radius, k * radius), corners) for k in (1.0, 0.7)]
        canvas.polygons(shapes, [bright(rng), bright(rng)], surface)


def poster(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    surface = canvas.surface(SIGN, thing.z, light=math.exp(rng.normal(0, 0.3)))
    low = rng.uniform(0.3, 2)
    feet = [upright(thing.x + k * thing.width, thing.z, 0.12, 0, low) for k in (-0.4, 0.4)]
    canvas.polygons(feet, STEEL, surface)
    advertise(canvas, rng, upright(thing.x, thing.z, thing.width, low, low + thing.height), surface)


def fence(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    """A wall, boards, or bars that one sees through."""
    near, far = along(thing)
    surface = canvas.surface(FENCE, (near + far) / 2, (0.15, 0.15, 0.2))
    x, h, count = thing.x, thing.height, max(2, round((far - near) / rng.uniform(0.3, 2.5)))
    wall = np.array([(x, 0, near), (x, 0, far), (x, h, far), (x, h, near)])
    posts = [(k / count, 0, (k + 0.15) / count, 1) for k in range(count)]
    if rng.random() < 0.45:
        shade = lit(thing.colour, rng.uniform(0.5, 1.2))
        pieces = [((0, 0, 1, 1), thing.colour), *((post, shade) for post in posts)]
        canvas.paint(wall, pieces, surface)
        return
    placed = canvas.project(wall)
    if region := canvas.region(placed):
        gaps = Image.new("L", (region[2] - region[0], region[3] - region[1]))
        ImageDraw.Draw(gaps).polygon((placed - region[:2]).ravel().tolist(), 255)
        canvas.claim(gaps, region, surface)
    rails = [(0, level, 1, level + 0.05) for level in (0.15, 0.55, 0.93)]
    canvas.polygons(patches(wall, rails + posts), lit(STEEL, rng.uniform(0.05, 1.2)), surface)


def rail(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    near, far = along(thing)
    surface = canvas.surface(FENCE, (near + far) / 2)
    x, h = thing.x, thing.height
    wall = np.array([(x, 0, near), (x, 0, far), (x, h, far), (x, h, near)])
    pieces = [((k / 8, 0, k / 8 + 0.02, 0.7), lit(STEEL, 0.4)) for k in range(8)]
    for low, high, light in ((0.5, 0.7, 0.8), (0.7, 0.82, 0.4), (0.82, 1.0, 1.0)):
        pieces.append(((0, low, 1, high), lit(thing.colour, light)))
    canvas.paint(wall, pieces, surface)


def gantry(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    """A bridge of signs over a motorway."""
    pole = canvas.surface(POLE, thing.z)
    surface = canvas.surface(SIGN, thing.z)
    x, z, h, half = thing.x, thing.z, thing.height, thing.width / 2
    legs = [upright(x + side, z, 0.4, 0, h) for side in (-half, half)]
    canvas.polygons([*legs, upright(x, z, 2 * half, h - 0.5, h)], STEEL, pole)
    for k in range(rng.integers(1, 4)):
        low, tall = h - 0.6, rng.uniform(1.5, 3)
        middle = x - half + (k + 0.7) * 2 * half / 3
        board = upright(middle, z, rng.uniform(2, 4), low, low + tall)
        rows = [((0.1, y, rng.uniform(0.4, 0.9), y + 0.13), WHITE) for y in (0.2, 0.45, 0.7)]
        pieces = [((0, 0, 1, 1), WHITE), ((0.02, 0.03, 0.98, 0.97), BLUE), *rows]
        canvas.paint(board, pieces, surface)
