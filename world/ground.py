"""The land: verges, pavements, the road with its markings, and what closes the view."""

import math

import numpy as np
from numpy.random import Generator

from world.canvas import BUILDING, PAVEMENT, ROAD, TREE, Canvas
from world.colours import lit
from world.scene import Road, Scene

KERB = 0.1  # metres above the road
FAR = 400.0  # metres: where the drawn ground ends
ARROW = ((-0.1, 0), (0.1, 0), (0.1, 2.5), (0.35, 2.5), (0, 4), (-0.35, 2.5), (-0.1, 2.5))
YELLOW_PAINT = (225, 180, 40)


def strip(left: float, right: float, z: np.ndarray, level: float = 0.0) -> np.ndarray:
    """(len(z) - 1, 4, 3) pieces of the ground between two x, bent with the road at each z.

    One outline of all would have holes where the ground behind a bend or a top lies over itself.
    """
    near, far = z[:-1], z[1:]
    corners = ((left, near), (left, far), (right, far), (right, near))
    return np.stack([np.stack(np.broadcast_arrays(x, level, at), -1) for x, at in corners], 1)


def draw_ground(canvas: Canvas, scene: Scene, rng: Generator) -> None:
    road, camera = scene.road, scene.camera
    below = (1 - camera.horizon) * canvas.window.frame_height / canvas.focal
    start = max(0.6, 0.7 * camera.height / max(below, 0.05))  # where the frame's lower edge looks
    z = np.concatenate((np.geomspace(start, 60, 14), (80, 110, 150, 220, FAR)))

    def ground(label: int, *rough: float) -> int:
        return canvas.surface(label, 0.0, rough, ground=True)

    verge = ground(TREE, 0.15, 0.25, rng.uniform(0.2, 0.5))
    canvas.polygons(strip(-FAR, FAR, z), road.verge, verge)
    if road.pavement:
        slabs = ground(PAVEMENT, 0.1, 0.1, rng.uniform(0.05, 0.25))
        lift = rng.normal(20, 15) + rng.normal(0, 6, 3)
        colour = tuple(np.clip(road.colour + lift, 20, 220).astype(int).tolist())
        kerb = lit(colour, rng.uniform(0.5, 1.8))
        for side, edge in ((-1, road.left), (1, road.right)):
            outer = edge + side * (road.pavement + 0.6)
            canvas.polygons(strip(edge, outer, z), lit(kerb, 0.6), slabs)  # the kerb's side
            canvas.polygons(strip(edge, outer, z, KERB), colour, slabs)
            canvas.polygons(strip(edge, edge + side * 0.15, z, KERB), kerb, slabs)
    tar = ground(ROAD, rng.uniform(0, 0.12), rng.uniform(0, 0.08), rng.uniform(0.03, 0.15))
    canvas.polygons(strip(road.left, road.right, z), road.colour, tar)
    for side, at, width in road.mouths:
        edge = road.right if side > 0 else road.left
        mouth = strip(edge - 0.1 * side, edge + 40 * side, np.array([at, at + width]), 0.02)
        canvas.polygons(mouth, lit(road.colour, 0.95), tar)
    for _ in range(rng.poisson(2)):  # repairs, covers, oil
        x, near = rng.uniform(road.left, road.right), rng.uniform(3, 30)
        far, right = near + rng.uniform(0.5, 8), x + rng.uniform(0.3, 1.5)
        colour = lit(road.colour, rng.uniform(0.6, 1.4))
        canvas.polygons(strip(x, right, np.array([near, far])), colour, tar)
    mark(canvas, road, rng, z, ground(ROAD, 0.05, 0.1, 0.1))


def mark(canvas: Canvas, road: Road, rng: Generator, z: np.ndarray, surface: int) -> None:
    """Lines between lanes and at the edges, zebras and stop lines, arrows."""
    grey = int(rng.integers(130, 236))
    paint = YELLOW_PAINT if rng.random() < 0.06 else (grey, grey, grey)
    marks = []
    if rng.random() < 0.85:
        for x in road.lanes:
            half = rng.uniform(0.05, 0.1)
            if rng.random() < 0.15:
                marks += [*strip(x - half, x + half, z)]
                continue
            length = rng.uniform(2, 6)
            step = length * rng.uniform(1.8, 3.2)
            starts = np.arange(rng.uniform(1, 1 + step), 90, step)
            marks += [strip(x - half, x + half, np.array([at, at + length]))[0] for at in starts]
    if rng.random() < (0.35 if road.pavement else 0.85):
        edges = road.left + 0.25, road.right - 0.25
        marks += [piece for x in edges for piece in strip(x - 0.08, x + 0.08, z)]
    for at in road.crossings:
        if rng.random() < 0.4:
            stripes, depth = np.arange(road.left, road.right - 0.5), np.array([at, at + 3])
            marks += [strip(x, x + 0.5, depth)[0] for x in stripes]
        else:
            marks += [*strip(road.left, road.right, np.array([at, at + 0.5]))]
    if rng.random() < 0.25:
        x, at = rng.normal(0, 0.4), rng.uniform(5, 25)
        marks.append(np.array([(x + across, 0, at + ahead) for across, ahead in ARROW]))
    for shape in marks:
        canvas.polygon(shape, paint, surface)


def draw_horizon(canvas: Canvas, rng: Generator) -> None:
    """Woods and roofs far away."""
    for z in (390, 260, 170):
        if rng.random() < 0.35:
            continue
        span = 1.3 * z / canvas.camera.focal
        wooded = rng.random() < 0.65
        count = 400 if wooded else 40
        uneven = rng.standard_normal(count)
        slow = np.cumsum(uneven) / math.sqrt(count)
        heights = rng.uniform(4, 0.06 * z) * np.clip(1 + 0.5 * slow + 0.1 * uneven, 0.2, 2)
        x = np.linspace(-span, span, count)
        if not wooded:  # steps
            x, heights = np.repeat(x, 2)[1:], np.repeat(heights, 2)[:-1]
        top = np.stack((x, heights, np.full(len(x), z)), -1)
        foot = [(span, -2, z), (-span, -2, z)]
        rough = (0.2, 0.3, 0.4 if wooded else 0.15)
        surface = canvas.surface(TREE if wooded else BUILDING, z, rough)
        colour = np.clip(rng.uniform(10, 80) + rng.normal(0, 8, 3), 5, 200).astype(int)
        canvas.polygon(np.concatenate((top, foot)), tuple(colour.tolist()), surface)
