"""Trees with leaves and without, conifers, bushes and hedges."""

import math
from functools import cache, partial

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from world.buildings import along
from world.camera import textures
from world.canvas import BUILDING, TREE, Canvas, upright
from world.colours import lit
from world.scene import Thing

MASK = 192  # pixels a side
CROWNS = 6  # of each kind, and their mirror images
BARK = (74, 62, 52)
EDGE = 100  # level of a crown's darkest pixels
INSIDE = [255 * (level > EDGE // 2) for level in range(256)]
SHARES = [max(0, level - EDGE) * 255 // (255 - EDGE) for level in range(256)]
FULL = [255 * (level == 255) for level in range(256)]


@cache
def crowns(kind: str) -> tuple[Image.Image, ...]:
    """L images of crowns: 0 is outside, EDGE and more inside, 255 a twig or a leaf in the light."""
    rng = default_rng(1)
    make = bare_crown if kind == "bare" else partial(foliage, conifer=kind == "conifer")
    made = [make(rng, k) for k in range(CROWNS)]
    return (*made, *map(ImageOps.mirror, made))


def foliage(rng: Generator, k: int, conifer: bool = False) -> Image.Image:
    y, x = np.mgrid[-1 : 1 : MASK * 1j, -1 : 1 : MASK * 1j]
    outline = 1 - 1.2 * np.hypot(x, y)
    if conifer:
        outline = 1.2 * np.minimum((y + 1) * 0.5 - np.abs(x), 0.9 - y)
    rough, fine = (textures(256)[n + k % 3, 8 * k :, 8 * k :][:MASK, :MASK] for n in (10, 3))
    value = outline + 0.13 * (rough - rough.mean()) + rng.uniform(0.03, 0.12) * fine
    light = np.clip(rough - 1.8 * y + 0.8 * fine - 0.6, 0, 1)
    levels = np.where(value > 0.15, EDGE + (255 - EDGE) * light, 0)
    return fitted(Image.fromarray(levels.astype(np.uint8)))


def fitted(image: Image.Image) -> Image.Image:
    return image.resize((MASK, MASK), Image.Resampling.BOX, image.getbbox())


def bare_crown(rng: Generator, k: int) -> Image.Image:
    side = 3 * MASK
    image = Image.new("L", (side, side))
    draw = ImageDraw.Draw(image)

    def grow(x: float, y: float, angle: float, length: float, width: float) -> None:
        tip = x + length * math.sin(angle), y - length * math.cos(angle)
        draw.line((x, y, *tip), 255, max(1, round(width)))
        if length > 0.03 * side:
            for _ in range(3 if length > 0.045 * side else 4):
                reach = length * rng.uniform(0.62, 0.85)
                grow(*tip, angle + rng.normal(0, 0.5), reach, width * 0.66)

    for _ in range(3):
        grow(side / 2, side, rng.normal(0, 0.25), side * rng.uniform(0.2, 0.26), 0.026 * side)
    # What grows out of a round crown is cut.
    twigs = ImageChops.multiply(fitted(image), foliage(rng, k).point(INSIDE))
    outline = np.asarray(twigs.filter(ImageFilter.GaussianBlur(4))) > 12
    levels = np.where(outline, EDGE + (1 - EDGE / 255) * np.asarray(twigs), 0)
    return Image.fromarray(levels.astype(np.uint8))


@cache
def dither() -> Image.Image:
    """Even noise of 0 to 254 over which a mask's levels become shares of pixels."""
    tile = default_rng(2).integers(0, 255, (256, 256), np.uint8)
    return Image.fromarray(np.tile(tile, (16, 16)))


def stamp_crown(canvas: Canvas, rng: Generator, thing: Thing, low: float, surface: int) -> None:
    """Leaves or twigs between `low` and the thing's height."""
    choices = crowns(thing.kind)
    mask = choices[rng.integers(len(choices))]
    corners = canvas.project(upright(thing.x, thing.z, thing.width, low, thing.height))
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    box = canvas.region(corners)
    if not box or right - left < 2 or bottom - top < 2:
        return
    size = box[2] - box[0], box[3] - box[1]
    across, down = MASK / (right - left), MASK / (bottom - top)
    part = (
        max(0, (box[0] - left) * across), max(0, (box[1] - top) * down),
        min(MASK, (box[2] - left) * across), min(MASK, (box[3] - top) * down),
    )  # fmt: skip
    if part[2] <= part[0] or part[3] <= part[1]:
        return
    levels = mask.resize(size, Image.Resampling.BILINEAR, part)
    inside = levels.point(INSIDE, "1")
    shares = ImageChops.add(levels.point(SHARES), dither().crop((0, 0, *size))).point(FULL, "1")
    if thing.kind == "bare":
        canvas.claim(inside, box, surface, (BUILDING, TREE))
        canvas.image.paste((*thing.colour, surface), box, shares)
    else:
        canvas.image.paste((*lit(thing.colour, 0.5), surface), box, inside)
        canvas.image.paste((*lit(thing.colour, rng.uniform(0.9, 1.8)), surface), box, shares)


def tree(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    rough = tuple(rng.uniform((0.1, 0.2, 0.2), (0.4, 0.6, 0.8)).tolist())
    surface = canvas.surface(TREE, thing.z, (0.1, 0.1, 0.15) if thing.kind == "bare" else rough)
    low = thing.height * (0.05 if thing.kind == "conifer" else rng.uniform(0.15, 0.4))
    trunk, lean = thing.height * rng.uniform(0.02, 0.04), thing.height * rng.normal(0, 0.03)
    foot = upright(thing.x, thing.z, 2 * trunk, 0, 0)
    head = upright(thing.x + lean, thing.z, trunk, 0, low * 1.3)
    canvas.polygon([*foot[:2], *head[2:]], lit(BARK, rng.uniform(0.2, 1.2)), surface)
    stamp_crown(canvas, rng, thing, low, surface)


def bush(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    rough = tuple(rng.uniform((0.1, 0.2, 0.2), (0.4, 0.6, 0.8)).tolist())
    stamp_crown(canvas, rng, thing, 0.0, canvas.surface(TREE, thing.z, rough))


def hedge(canvas: Canvas, thing: Thing, rng: Generator) -> None:
    near, far = along(thing)
    rough = tuple(rng.uniform((0.1, 0.3, 0.3), (0.4, 0.7, 0.9)).tolist())
    surface = canvas.surface(TREE, (near + far) / 2, rough)
    z, uneven = np.linspace(near, far, 14), rng.standard_normal(14)
    top = thing.height * (1 + rng.uniform(0.02, 0.15) * uneven)
    edge = np.stack((np.full(14, thing.x), top, z), -1)
    wall = np.concatenate((edge * (1, 0, 1), edge[::-1]))
    canvas.polygon(wall, lit(thing.colour, rng.uniform(0.4, 1)), surface)
    width = min(thing.height, 2) / 2
    end = upright(thing.x + math.copysign(width, thing.x) / 2, near, width, 0, thing.height)
    canvas.polygon(end, lit(thing.colour, 0.6), surface)
