"""Photographs of German traffic signs, drawn: the data set that needs no download.

A face, worn and seen at an angle, before a backdrop, through the camera of a car.

    draw_sign(12, np.random.default_rng(0)).show()       # a stop sign on a November afternoon
    draw_dataset(Path("data/signs"))                     # train/ val/ test/ CLASS/ NNNNN.jpg
"""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image, ImageDraw

from world.camera import GAMMA, LINEAR, compress, expose, noise, shade, wear
from world.colours import BLACK, BLUE, GREEN, RED, WHITE, YELLOW
from world.faces import FACES, draw_face, num_variants
from world.parallel import Chunk, Drawing

FURTHER = (  # faces that the course's data set leaves out
    "end_of_speed_limit_80", "no_overtaking_by_trucks", "no_trucks", "double_curve",
    "slippery_road", "road_works", "pedestrians", "children", "bicycles", "snow", "wild_animals",
    "end_of_limits", "ahead_or_right", "ahead_or_left", "keep_left", "end_of_no_overtaking",
    "end_of_no_overtaking_by_trucks",
)  # fmt: skip
NAMES = tuple(name for name in FACES if name not in FURTHER)
ALL = tuple(FACES)  # the benchmark's 43 in its own order


def folders_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return what classes are called: their names, numbered."""
    return tuple(f"{label:02d}_{name}" for label, name in enumerate(names))


CLASSES = folders_of(NAMES)
SCENE = 72  # pixels; scenes are drawn at this size and seen by sensors of 15 to 64


# Pairs of colours between which a texture moves: leaves, branches, walls, asphalt, skies.
PALETTES = (
    ((12, 14, 10), (70, 80, 45)), ((25, 22, 15), (150, 110, 60)), ((10, 12, 10), (190, 190, 120)),
    ((20, 20, 24), (240, 240, 245)), ((40, 38, 36), (90, 85, 80)),
    ((110, 100, 90), (190, 175, 160)), ((110, 60, 45), (165, 100, 80)),
    ((70, 75, 85), (130, 140, 150)), ((120, 150, 200), (215, 230, 250)),
    ((225, 225, 225), (255, 255, 255)), ((190, 190, 195), (250, 250, 255)),
    ((8, 8, 10), (30, 30, 34)),
)  # fmt: skip


def backdrop(rng: Generator) -> np.ndarray:
    """(SCENE, SCENE, 3) uint8: two textured regions, buildings, branches, poles."""
    first, second = rng.integers(0, len(PALETTES), 2)
    pixels = textured(rng, first)
    if rng.random() < 0.5:  # a skyline, a wall's edge
        slope, offset = rng.normal(0, 0.6), rng.normal(0, 12)
        ramp = np.arange(SCENE, dtype=np.float32) - SCENE / 2
        edge = ramp[:, None] - slope * ramp[None] - offset + rng.uniform(0, 6) * noise(rng, SCENE)
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


def textured(rng: Generator, palette: int) -> np.ndarray:
    dark, light = np.asarray(PALETTES[palette], np.float32)
    mix = np.clip(0.5 + rng.uniform(0.2, 1.2) * noise(rng, SCENE), 0, 1)[..., None]
    return (dark + (light - dark) * mix).astype(np.uint8)


def neighbours(
    rng: Generator, scene: Image.Image, x: float, y: float, radius: float, names: Sequence[str]
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
            other = draw_face(names[rng.integers(len(names))], SCENE)
            diameter = round(2 * radius * rng.uniform(0.9, 1.1))
            other = other.resize((diameter, diameter), Image.Resampling.BILINEAR)
            corner = (x - diameter / 2, y - diameter / 2 + side * rng.uniform(1.8, 2.2) * radius)
            scene.paste(other, (round(corner[0]), round(corner[1])), other)


def height_of(label: int, names: Sequence[str] = NAMES) -> float:
    """What a plate's height is to be stretched by for a square around the plate."""
    left, top, right, bottom = draw_face(names[label], SCENE).getbbox()
    return (right - left) / (bottom - top)


def put_up(
    label: int, rng: Generator, x: float, y: float, radius: float, tall: float,
    names: Sequence[str] = NAMES,
) -> Image.Image:  # fmt: skip
    """A clean plate of some print, turned, tilted and seen in perspective; RGBA, SCENE a side.

    Its middle lies at x, y; `radius` is half its width, `tall` stretches its height.
    """
    face = draw_face(names[label], SCENE, int(rng.integers(num_variants(names[label]))))
    roll, skew = rng.normal(0, 0.07), rng.normal(0, 0.05)
    narrow, stretch = 1 - abs(rng.normal(0, 0.1)), math.exp(rng.normal(0, 0.06))
    c, s, half = math.cos(roll), math.sin(roll), SCENE / 2
    to_unit = np.array([[1 / half, 0, -1], [0, 1 / half, -1], [0, 0, 1]])
    tilt = np.array([[narrow, skew, 0], [0, stretch, 0], [*rng.normal(0, 0.06, 2), 1]])
    place = np.array(
        [[radius * c, -radius * s, x], [radius * s * tall, radius * c * tall, y], [0, 0, 1]]
    )
    back = np.linalg.inv(place @ tilt @ to_unit)
    back = tuple((back / back[2, 2]).ravel()[:8])
    return face.transform(
        (SCENE, SCENE), Image.Transform.PERSPECTIVE, back, Image.Resampling.BILINEAR
    )


INKS = np.array((WHITE, BLACK, RED, BLUE, YELLOW, GREEN), np.float32)
LEGIBLE = 7  # grey levels between a face's inks; few real photographs have less


def draw_sign(label: int, rng: Generator, names: Sequence[str] = NAMES) -> Image.Image:
    """One photograph of class `label` of `names`: an RGB crop of 25 to 64 pixels a side.

    One that nobody can read, burnt out or all black, is taken again.
    """
    while True:
        image, plate = photograph(label, rng, names)
        if contrast(np.asarray(image), plate) >= LEGIBLE:
            return image


def contrast(photo: np.ndarray, plate: Image.Image) -> float:
    """The least difference between a plate's white and another of its inks, in grey levels."""
    height, width = photo.shape[:2]
    clean = np.asarray(plate.resize((width, height), Image.Resampling.BOX))
    whole = clean[..., 3] > 250
    # Channel by channel: sums over an axis of three are slow.
    channels = zip(clean[whole].T[:3].astype(np.float32), INKS.T, strict=True)
    distance = sum(np.abs(channel[:, None] - inks) for channel, inks in channels)
    pure = distance.min(1) < 60
    printed, seen = distance.argmin(1)[pure], photo[whole][pure]
    shares = np.bincount(printed, minlength=len(INKS)) / max(1, len(printed))
    white, *others = [seen[printed == ink].mean(0) for ink in np.flatnonzero(shares > 0.03)]
    return min((np.abs(white - other).max() for other in others), default=0.0)


def photograph(
    label: int, rng: Generator, names: Sequence[str] = NAMES
) -> tuple[Image.Image, Image.Image]:
    """A photograph of class `label`, and the plate in it, SCENE pixels a side and clean."""
    size = int(np.clip(25 + rng.gamma(2.0, 10), 25, 64))
    tall = height_of(label, names)  # photographs are cut to the plate, and so is the scene
    radius = SCENE * (0.5 - max(0.1, 5 / size) * rng.uniform(0.8, 1.4))
    x, y = SCENE / 2 + rng.normal(0, 0.025, 2) * SCENE

    background = Image.fromarray(backdrop(rng))
    neighbours(rng, background, x, y, radius, names)
    plate = put_up(label, rng, x, y, radius, tall, names)
    clean = np.asarray(plate)
    alpha = clean[..., 3:] * np.float32(1 / 255)
    tones = LINEAR ** np.float32(rng.uniform(1, 1.6))  # photographs are more contrasty than paint
    face = wear(rng, tones.take(clean[..., :3]))

    brightness = min(max(math.exp(rng.normal(math.log(0.55), 0.75)), 0.05), 1.8) ** GAMMA
    # Background against sign; a bright sky behind a plate leaves it dark.
    behind = math.exp(rng.normal(-0.4, 0.8) if rng.random() < 0.75 else rng.normal(1.8, 1))
    # In the shade light is blue: it comes from the sky.
    cast = np.exp(rng.normal((0, 0, 0.15), 0.08) + rng.normal(0, 0.12) * np.array([1, 0, -1]))
    ground = tones.take(background)
    grey = ground.mean(2, keepdims=True)
    ground = grey + np.float32(rng.uniform(0.3, 1)) * (ground - grey)
    scene = face * (alpha * shade(rng, SCENE)) + ground * (behind * (1 - alpha))
    scene = scene * (brightness * cast).astype(np.float32)

    shape = size * np.array([1, tall]) / math.sqrt(tall) * np.exp(rng.normal(0, 0.02, 2))
    height, width = np.clip(np.round(shape), 25, 64).astype(int).tolist()
    # Far signs fill few pixels of the sensor and are enlarged.
    scale = 1.0 if rng.random() < 0.9 else rng.uniform(15, 26) / max(height, width)
    seen = expose(rng, scene, (round(height * scale), round(width * scale)), mosaic=True)
    image = Image.fromarray(seen)
    if scale != 1:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if rng.random() < 0.3:
        image = Image.fromarray(compress(np.asarray(image), int(rng.integers(30, 90))))
    return image, plate


def draw_chunk_of_signs(chunk: Chunk, names: Sequence[str] = NAMES) -> list[str]:
    """Writes one chunk; returns each image's file."""
    place, every = folders_of(names)[chunk.label], range(chunk.start, chunk.stop)
    files = [f"{place}/{index:05d}.jpg" for index in every]
    for index, file in zip(every, files, strict=True):
        rng = default_rng((chunk.seed, chunk.split, chunk.label, index))
        draw_sign(chunk.label, rng, names).save(chunk.folder / file, quality=90)
    return files


# root/{split}/{class}/NNNNN.jpg
SPLITS = {"train": 500, "val": 50, "test": 50}
draw_dataset = Drawing(draw_chunk_of_signs, SPLITS, 25, CLASSES)
draw_all = Drawing(partial(draw_chunk_of_signs, names=ALL), SPLITS, 25, folders_of(ALL))
