"""Posts with their plates, lamps, traffic lights, bollards, wires, people and bicycles."""

import math
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image

from world.camera import worn
from world.canvas import BICYCLIST, PEDESTRIAN, POLE, SIGN, VOID, Canvas, Note, upright
from world.colours import bright, lit
from world.faces import FACES
from world.plates import draw_plate
from world.scene import Plate, Thing

CLOTH = ((24, 26, 32), (40, 44, 60), (60, 54, 48), (30, 30, 30))
SKIN, HAIR = (206, 160, 130), (60, 44, 30)
SIGNALS = ((230, 40, 30), (250, 180, 40), (60, 240, 170))
FACE = 144  # pixels; a plate is drawn at this size, a far one at half of it


@cache
def coverage(name: str) -> float:
    """Share of its square that a plate fills."""
    return float((np.asarray(draw_plate(name, FACE))[..., 3] > 127).mean())


def post(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    """A post and its plates."""
    pole = canvas.surface(POLE, thing.z, light=math.exp(rng.normal(-0.2, 0.4)))
    canvas.polygon(upright(thing.x, thing.z, thing.width, 0, thing.height), thing.colour, pole)
    light = math.exp(rng.normal(-0.25, 0.6))
    for plate in thing.plates:
        hang(canvas, rng, thing, plate, light)


def hang(canvas: Canvas, rng: Generator, thing: Thing, plate: Plate, light: float) -> None:
    """A plate, worn and turned, in perspective."""
    rough = tuple(rng.uniform(0, (0.15, 0.12, 0.08)).tolist())
    surface = canvas.surface(SIGN, thing.z, rough, light * math.exp(rng.normal(0, 0.1)))
    c, s = math.cos(plate.turn), math.sin(plate.turn)
    a, b = math.cos(plate.roll), math.sin(plate.roll)
    x, y = plate.radius * np.array([(-a - b, a - b, a + b, b - a), (a - b, a + b, b - a, -a - b)])
    # The plate is fixed before the post.
    corners = canvas.project(np.stack((thing.x + c * x, plate.y + y, thing.z - 0.05 + s * x), -1))
    after = np.roll(corners, -1, 0)
    area = abs((corners[:, 0] * after[:, 1] - after[:, 0] * corners[:, 1]).sum()) / 2
    kind = "back" if plate.behind else "sign" if plate.name in FACES else "plate"
    whole = area * coverage(plate.name) / canvas.SUPERSAMPLE**2
    canvas.notes[surface] = Note(kind, plate.name, thing.z, whole)
    region = canvas.region(corners)
    if region is None:
        return
    side = FACE if area > (FACE / 2) ** 2 else FACE // 2
    face = draw_plate(plate.name, side, plate.variant)
    if plate.behind:  # bare metal
        back = Image.new("RGBA", face.size, lit((140, 142, 144), rng.uniform(0.3, 1.2)))
        back.putalpha(face.getchannel("A"))
        face = back
    else:
        face = worn(rng, face)
    if area < (side / 2) ** 2:
        face = face.reduce(int(side / math.sqrt(area)))
    left, top, right, bottom = region
    side = face.width
    square = [(0, 0), (side, 0), (side, side), (0, side)]
    seen = face.transform(
        (right - left, bottom - top), Image.Transform.PERSPECTIVE,
        homography(corners - (left, top), square), Image.Resampling.BILINEAR,
    )  # fmt: skip
    canvas.stamp(seen.convert("RGB"), seen.getchannel("A"), region, surface)


def homography(from_points: np.ndarray, to_points: list[tuple[float, float]]) -> list[float]:
    """Eight coefficients of the map that takes four points to four others."""
    rows, values = [], []
    for (x, y), (u, v) in zip(from_points.tolist(), to_points, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        values += [u, v]
    return np.linalg.solve(np.array(rows), np.array(values)).tolist()


def lamp(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    surface = canvas.surface(POLE, thing.z)
    x, z, h, reach = thing.x, thing.z, thing.height, thing.width
    canvas.polygon(upright(x, z, 0.13, 0, h), thing.colour, surface)
    if reach:
        canvas.line([(x, h - 0.1, z), (x + reach, h + 0.3, z)], 0.09, thing.colour, surface)
        canvas.polygon(upright(x + reach, z, 0.7, h + 0.2, h + 0.4), thing.colour, surface)


def bollard(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    pieces = [((0, 0, 1, 1), thing.colour)]
    if rng.random() < 0.6:
        pieces.append(((0, 0.6, 1, 0.8), bright(rng)))
    wall = upright(thing.x, thing.z, thing.width, 0, thing.height)
    canvas.paint(wall, pieces, canvas.surface(POLE, thing.z))


def traffic_light(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    pole = canvas.surface(POLE, thing.z)
    x, z, h, reach = thing.x, thing.z, thing.height, thing.width
    grey = lit((130, 132, 130), rng.uniform(0.2, 1.2))
    heads = [(x, h)]
    if reach:
        h = 5.5
        canvas.line([(x, h, z), (x + reach, h, z)], 0.12, grey, pole)
        heads.append((x + reach, h + 0.3))
    canvas.polygon(upright(x, z, 0.12, 0, h), grey, pole)
    on = int(rng.integers(3))
    for middle, top in heads:
        surface = canvas.surface(SIGN, z)
        if rng.random() < 0.3:
            board = upright(middle, z, 0.55, top - 1.05, top + 0.15)
            canvas.polygon(board, (235, 235, 232), surface)
        canvas.polygon(upright(middle, z, 0.32, top - 0.92, top), (24, 26, 26), surface)
        for k, colour in enumerate(SIGNALS):
            shown = colour if k == on else lit(colour, 0.03)
            canvas.disc((middle, top - 0.16 - 0.3 * k, z), (0.1, 0.1), shown, surface)
        canvas.note(surface, "traffic_light", z, upright(middle, z, 0.55, top - 1.05, top + 0.15))


def wires(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    """Cables over the road, too thin for a label of their own."""
    y, z, half = thing.height, thing.z, thing.width / 2
    surface = canvas.surface(VOID, z)
    for k in range(3):
        left, right = (-half, y + 0.4 * k, z + 3 * k), (half, y + 0.7 * k, z - 2 * k)
        canvas.line([left, (0, y - 0.3, z), right], 0.03, (40, 42, 46), surface)


def person(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    surface = canvas.surface(PEDESTRIAN, thing.z, (0.1, 0.2, 0.2))
    body(canvas, thing, rng, 0.0, surface)
    outline = upright(thing.x, thing.z, 0.3 * thing.height, 0, thing.height)
    canvas.note(surface, "person", thing.z, outline)


def body(canvas: Canvas, thing: Thing, rng: Generator, low: float, surface: int) -> None:
    """A person as tall as the thing, the feet at `low`."""
    x, z, h = thing.x, thing.z, thing.height
    coat = CLOTH[rng.integers(4)] if rng.random() < 0.55 else bright(rng)
    trousers = CLOTH[rng.integers(4)]
    stride, facing = rng.uniform(0, 0.14), rng.integers(2) * 2 - 1

    def shape(*points: tuple[float, float]) -> list[tuple[float, float, float]]:
        return [(x + facing * px * h, low + py * h, z) for px, py in points]

    limbs, colours = [], []
    for side in (-1, 1):
        hip, foot, arm = 0.03 * side, stride * side, 0.09 * side
        leg = shape((hip - 0.055, 0.5), (hip + 0.055, 0.5), (foot + 0.045, 0), (foot - 0.045, 0))
        sleeve = shape((arm, 0.8), (1.5 * arm, 0.8), (1.6 * arm, 0.45), (1.1 * arm, 0.45))
        limbs += [leg, sleeve]
        colours += [lit(trousers, 1 + 0.3 * side), lit(coat, 0.8)]
    limbs.append(shape((-0.115, 0.82), (0.115, 0.82), (0.1, 0.44), (-0.1, 0.44)))
    canvas.polygons(limbs, [*colours, coat], surface)
    skin = lit(SKIN, rng.uniform(0.2, 1.1))
    canvas.disc((x, low + 0.91 * h, z), (0.06 * h, 0.08 * h), skin, surface)
    hair = shape((-0.06, 0.91), (0.06, 0.91), (0.05, 0.99), (-0.05, 0.99))
    canvas.polygon(hair, lit(HAIR, rng.uniform(0.2, 2)), surface)


def cyclist(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    surface = canvas.surface(BICYCLIST, thing.z, (0.1, 0.1, 0.2))
    x, z, spread = thing.x, thing.z, rng.uniform(0.05, 1.0)  # seen from behind, or from the side
    circle = np.linspace(0, 2 * math.pi, 17)
    for side in (-1, 1):
        across = x + side * 0.52 * spread + 0.33 * max(spread, 0.12) * np.cos(circle)
        wheel = np.stack((across, 0.34 + 0.33 * np.sin(circle), np.full(17, z)), -1)
        canvas.line(wheel, 0.05, (22, 22, 24), surface)
    frame = ((-0.52, 0.34), (-0.2, 0.9), (0, 0.35), (0.4, 0.95), (0.52, 0.34))
    points = [(x + px * spread, py, z) for px, py in frame]
    canvas.line(points, 0.05, bright(rng), surface)
    rider = thing._replace(height=thing.height * 0.85, x=x - 0.05)
    body(canvas, rider, rng, 0.38, surface)
    width = max(0.3 * thing.height, 1.7 * spread)
    canvas.note(surface, "cyclist", z, upright(x, z, width, 0, 0.38 + rider.height))
