"""Cars, vans, lorries, buses, and boxes beside the road: blocks with something on their walls."""

import math

import numpy as np
from numpy.random import Generator

from world.buildings import advertise
from world.canvas import CAR, VOID, Canvas, Rectangle, rings
from world.colours import GLASS, Colour, bright, lit
from world.scene import Thing

LIGHTS = {"near": 0.75, "far": 0.75, "left": 0.9, "right": 0.6, "top": 1.25}
RUBBER, LAMP, BRAKE, REAR = (16, 16, 18), (240, 238, 226), (255, 60, 40), (190, 20, 24)
BUS_PANES = [(k / 6 + 0.02, 0.45, k / 6 + 0.15, 0.82) for k in range(6)]
# Windows in front and behind, and at the sides from the rear to the front.
WINDOWS: dict[str, tuple[list[Rectangle], list[Rectangle]]] = {
    "car": ([(0.06, 0.08, 0.94, 0.88)], [(0.08, 0.1, 0.5, 0.85), (0.54, 0.1, 0.92, 0.85)]),
    "van": ([(0.08, 0.5, 0.92, 0.88)], [(0.7, 0.52, 0.92, 0.85)]),
    "lorry": ([(0.08, 0.5, 0.92, 0.9)], [(0.2, 0.5, 0.8, 0.88)]),
    "bus": ([(0.06, 0.42, 0.94, 0.82)], BUS_PANES),
}

Plan = tuple[float, float, float, float]  # left, right, near, far, in metres
Walls = dict[str, np.ndarray]  # (4, 3) corners by the names near, far, left, right and top


def block(
    canvas: Canvas, thing: Thing, low: Plan, high: Plan, levels: tuple[float, float],
    colour: Colour, surface: int,
) -> Walls:  # fmt: skip
    """Draws a block that tapers from one plan to another; returns the walls that are seen.

    Plans lie about the middle of the thing's near end, before it is turned about its middle.
    """
    c, s = math.cos(thing.turn), math.sin(thing.turn)
    half = thing.length / 2
    corners = np.empty((2, 2, 2, 3))  # low and high, near and far, left and right
    for level, (left, right, near, far) in enumerate((low, high)):
        x, z = np.array([left, right]), np.array([[near], [far]]) - half
        corners[level, ..., 0] = thing.x + c * x + s * z
        corners[level, ..., 1] = levels[level]
        corners[level, ..., 2] = thing.z + half - s * x + c * z
    a, b = corners
    walls = {
        "near": (a[0, 0], a[0, 1], b[0, 1], b[0, 0]),
        "far": (a[1, 1], a[1, 0], b[1, 0], b[1, 1]),
        "left": (a[1, 0], a[0, 0], b[0, 0], b[1, 0]),
        "right": (a[0, 1], a[1, 1], b[1, 1], b[0, 1]),
        "top": (b[0, 0], b[0, 1], b[1, 1], b[1, 0]),
    }
    points = np.array(list(walls.values()))
    placed = canvas.project(points)
    step = np.roll(placed, -1, 1) - placed
    turns = step[:, 0, 0] * step[:, 1, 1] - step[:, 0, 1] * step[:, 1, 0]
    # The corners of a wall that faces the camera run against the clock.
    seen = {name: wall for name, wall, turn in zip(walls, points, turns, strict=True) if turn < 0}
    canvas.polygons(list(seen.values()), [lit(colour, LIGHTS[name]) for name in seen], surface)
    return seen


def clutter(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    """Bins, letter boxes, power boxes."""
    surface = canvas.surface(VOID, thing.z)
    plan = (-thing.width / 2, thing.width / 2, 0, thing.length)
    walls = block(canvas, thing, plan, plan, (0, thing.height), thing.colour, surface)
    if "near" in walls and rng.random() < 0.3:
        advertise(canvas, rng, walls["near"], surface)


def vehicle(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    light = math.exp(rng.normal(0, 0.25))
    rough = tuple(rng.uniform(0.05, 0.25, 3).tolist())
    surface = canvas.surface(CAR, thing.z + thing.length / 2, rough, light)
    w, h, length = thing.width / 2, thing.height, thing.length

    def part(low: Plan, high: Plan, bottom: float, top: float, colour: Colour) -> dict:
        return block(canvas, thing, low, high, (bottom, top), colour, surface)

    whole, under = (-w, w, 0.0, length), (-0.92 * w, 0.92 * w, 0.1, length - 0.1)
    part(under, under, 0.16, 0.34, RUBBER)  # what is dark below
    tyres(canvas, thing, surface)
    if thing.kind == "car":
        belt = rng.uniform(0.56, 0.66) * h
        body = part(whole, (-0.96 * w, 0.96 * w, 0.0, length), 0.2, belt, thing.colour)
        rear, front = rng.uniform((0.02, 0.72), (0.16, 0.8)) * length
        roof = (-0.72 * w, 0.72 * w, rear + 0.14 * length, front - 0.17 * length)
        cabin = part((-0.93 * w, 0.93 * w, rear, front), roof, belt, h, thing.colour)
    elif thing.kind == "lorry":
        plan, load = (-0.95 * w, 0.95 * w, 0.78 * length, length), (-w, w, 0, 0.76 * length)
        paint = bright(rng)
        if going := math.cos(thing.turn) > 0:  # the load hides the cab, or the cab the load
            cabin = part(plan, plan, 0.45, 0.78 * h, thing.colour)
        body = part(load, load, 0.9, h, paint)
        if rng.random() < 0.6:
            for name in ("near", "left", "right"):
                if name in body:
                    advertise(canvas, rng, body[name], surface)
        if not going:
            body = cabin = part(plan, plan, 0.45, 0.78 * h, thing.colour)
    else:
        roof = (-0.95 * w, 0.95 * w, 0, length * (0.95 if thing.kind == "van" else 1.0))
        body = cabin = part(whole, roof, 0.25, h, thing.colour)
    polish(canvas, rng, thing, body, surface)
    glaze(canvas, thing, cabin, rng, surface)
    attach(canvas, rng, thing, body, surface)
    if outline := [*body.values(), *cabin.values()]:
        canvas.note(surface, thing.kind, thing.z, outline)


def tyres(canvas: Canvas, thing: Thing, surface: int) -> None:
    """What stands on the road: from in front and behind, two tyres with light between them."""
    w, width, tall = thing.width / 2, 0.12 * thing.width, 0.6 * wheel_radius(thing) / 0.32
    for far in (0.72, 0.1) if math.cos(thing.turn) > 0 else (0.1, 0.72):  # the nearer one last
        for left in (-0.97 * w, 0.97 * w - width):
            near = far * thing.length
            plan = (left, left + width, near, near + 0.16 * thing.length)
            block(canvas, thing, plan, plan, (0.0, tall), RUBBER, surface)


def wheel_radius(thing: Thing) -> float:
    return 0.32 if thing.kind in ("car", "van") else 0.48


def polish(canvas: Canvas, rng: Generator, thing: Thing, walls: Walls, surface: int) -> None:
    """Paint mirrors: the sky above the bend of a wall, the road below it."""
    bend, sky, road = rng.uniform(0.55, 0.85), rng.uniform(0.9, 2.2), rng.uniform(0.35, 0.9)
    for name, wall in walls.items():
        if name != "top":
            above, below = (lit(thing.colour, LIGHTS[name] * light) for light in (sky, road))
            pieces = [((0.0, 0.0, 1.0, 0.45 * bend), below), ((0.0, bend, 1.0, 1.0), above)]
            canvas.paint(wall, pieces if thing.kind in ("car", "van") else pieces[:1], surface)


def glaze(canvas: Canvas, thing: Thing, walls: Walls, rng: Generator, surface: int) -> None:
    """Windows, dark where one looks in and light where they mirror the sky."""
    ends, sides = WINDOWS[thing.kind]
    glass, mirrored = lit(GLASS[rng.integers(3)], 0.8), lit(GLASS[rng.integers(5)], 0.9)
    share = rng.uniform(0, 0.7)
    for name, wall in walls.items():
        if name == "left":  # its corners run from the front to the rear
            panes = [(1 - right, low, 1 - left, high) for left, low, right, high in sides]
        elif name == "right":
            panes = sides
        else:
            panes = [] if name == "top" or (name, thing.kind) == ("near", "lorry") else ends
        bright = [(a, low + (1 - share) * (high - low), b, high) for a, low, b, high in panes]
        pieces = [*((pane, glass) for pane in panes), *((pane, mirrored) for pane in bright)]
        canvas.paint(wall, pieces, surface)


def attach(canvas: Canvas, rng: Generator, thing: Thing, walls: Walls, surface: int) -> None:
    """Wheels, lights, bumpers and number plates."""
    radius = wheel_radius(thing)
    rim = lit((150, 150, 150), rng.uniform(0.1, 1))
    rear = BRAKE if rng.random() < 0.3 else lit(REAR, rng.uniform(0.3, 1))
    bumper = RUBBER if rng.random() < 0.4 else lit(thing.colour, 0.25)
    number = (235, 235, 230) if rng.random() < 0.8 else (240, 200, 40)
    for name, wall in walls.items():
        low, tall, length = wall[0, 1], wall[3, 1] - wall[0, 1], math.dist(wall[0], wall[1])
        if name in ("left", "right"):
            wheels = []
            for r in (1.0 * radius, 0.6 * radius):
                radii = r / length, r / tall
                wheels += [rings(wall, x, (radius - low) / tall, radii) for x in (0.19, 0.8)]
            canvas.polygons(wheels, [RUBBER, RUBBER, rim, rim], surface)
        elif name != "top":
            y = 0.45 if thing.kind == "car" else 0.12
            lamp, size = rear if name == "near" else LAMP, 0.22 / tall
            pieces = [
                ((0.0, 0.0, 1.0, 0.2 / tall), bumper),
                ((0.03, y, 0.18, y + size), lamp),
                ((0.82, y, 0.97, y + size), lamp),
                ((0.36, 0.24 / tall, 0.64, 0.36 / tall), number),
            ]
            canvas.paint(wall, pieces, surface)
