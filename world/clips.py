"""Clips in which time matters: one sign, or several in turn, before one backdrop.

    draw_clip("motion", 1, np.random.default_rng(0))     # (16, 32, 32, 3) uint8: a sign goes left
    clips_of("motion")(Path("data/clips/motion_16"))     # train/ val/ test/: clips.npy, labels.npy

| kind | classes | what must not help |
|---|---|---|
| `motion` | what the sign does | any single frame |
| `order` | which of two signs came first | all frames together, their order lost |
| `memory` | which sign stood in the first frames | all later frames |

In `motion` each of place, size, angle and light has a phase, drawn evenly from a circle, and the
class moves one of them: at the end of its range it starts again at the other. So at every moment,
in every class, all phases are evenly spread and independent of each other: one frame says nothing.
The shutter is short: a blur along the way would tell its axis.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

from world.camera import GAMMA, LINEAR, shade, through_lens, worn
from world.faces import draw_face, num_variants
from world.parallel import Chunk, Drawing
from world.signs import SCENE, backdrop

PIXELS = 32  # a side of a frame
FRAMES = 16
FACE = 48  # pixels that a face is drawn at, about what it has in the scene
ZOOM = SCENE / PIXELS
RADII = (6.0, 12.0)  # pixels of a frame
PLACES = (8.0, 24.0)  # likewise, of a sign's middle
DIM = 0.25  # light of a sign whose lamp is off
TRAVEL = (0.5, 0.9)  # of a range, in a clip; of the circle, for a turn, half of that
PERIOD = (4.0, 8.0)  # frames from one flash to the next
SLOT = 4  # frames that a sign stands in `memory`

# What moves in each class of `motion`: the place in `Pose`, and which way.
MOTIONS = {
    "still": None, "left": ("x", -1), "right": ("x", 1), "up": ("y", -1), "down": ("y", 1),
    "nearer": ("size", 1), "farther": ("size", -1), "turning_clockwise": ("angle", 1),
    "turning_counter_clockwise": ("angle", -1), "blinking": ("lamp", 1),
}  # fmt: skip
# Faces whose turning is seen at this size; a ring with a number in it hardly looks turned.
MOVING = (
    "give_way", "stop", "no_entry", "priority_road", "priority_crossing", "general_caution",
    "curve_left", "curve_right", "road_narrows", "traffic_signals", "turn_left", "turn_right",
    "ahead_only", "keep_right",
)  # fmt: skip
PAIR = ("no_entry", "priority_road")
TOLD_APART = (
    "no_vehicles", "speed_limit_50", "give_way", "stop", "no_entry", "priority_road",
    "general_caution", "ahead_only", "roundabout", "end_of_limits",
)  # fmt: skip


class Pose(NamedTuple):
    """Where a sign is in each frame, and how it is lit: (T,) each."""

    x: np.ndarray  # pixels of a frame, of its middle
    y: np.ndarray
    size: np.ndarray  # its radius, in pixels of a frame
    angle: np.ndarray  # radians, clockwise
    lamp: np.ndarray  # light that falls on it, beside the scene's


# ---------------------------------------------------------------- what happens in a clip

# The plates, which of them each frame shows (-1: none), and where.
Story = tuple[list[str], np.ndarray, Pose]


def motion(label: int, rng: Generator, frames: int) -> Story:
    """One sign that does what the class says."""
    phases = dict(zip(Pose._fields, np.tile(rng.random((5, 1)), frames), strict=True))
    travel, period = rng.uniform(*TRAVEL), rng.uniform(*PERIOD)
    if (moved := tuple(MOTIONS.values())[label]) is not None:
        name, way = moved
        speed = {"lamp": 1 / period, "angle": travel / 2 / frames}.get(name, travel / frames)
        phases[name] = (phases[name] + way * speed * np.arange(frames)) % 1
    face = MOVING[rng.integers(len(MOVING))]
    return [face], np.zeros(frames, int), pose_of(**phases)


def pose_of(
    x: np.ndarray, y: np.ndarray, size: np.ndarray, angle: np.ndarray, lamp: np.ndarray
) -> Pose:
    """Phases in [0, 1) to a pose."""
    low, high = PLACES
    return Pose(
        low + (high - low) * x,
        low + (high - low) * y,
        RADII[0] * (RADII[1] / RADII[0]) ** size,
        2 * math.pi * angle,
        np.where(lamp < 0.5, 1.0, DIM),
    )


def upright(rng: Generator, which: np.ndarray) -> Pose:
    """Poses of signs that stand still, each near the middle and large: easy to read."""
    count = which.max() + 1
    x, y, size = rng.uniform((0.3, 0.3, 0.6), (0.7, 0.7, 1), (count, 3))[which].T
    lean, lit = rng.normal(0, 0.1, count)[which], np.zeros(len(which))
    return pose_of(x, y, size, lit, lit)._replace(angle=lean)


def order(label: int, rng: Generator, frames: int) -> Story:
    """Two signs, one after the other, for as long and wherever it may be."""
    lengths = rng.integers(frames * 3 // 16, frames * 6 // 16, 2, endpoint=True)
    first, end = np.sort(rng.integers(0, frames - lengths.sum(), 2, endpoint=True))
    which = np.full(frames, -1)
    which[first : first + lengths[0]] = 0
    which[end + lengths[0] : end + lengths.sum()] = 1
    return [PAIR[label], PAIR[1 - label]], which, upright(rng, which)


def memory(label: int, rng: Generator, frames: int) -> Story:
    """A sign, and then others, each as likely to be any of them as the first."""
    shown = [label, *rng.integers(len(TOLD_APART), size=-(-frames // SLOT) - 1)]
    which = np.arange(frames) // SLOT
    return [TOLD_APART[sign] for sign in shown], which, upright(rng, which)


class Kind(NamedTuple):
    """A data set of clips.

    story: (label, generator, frames) to what happens.
    counts: clips in each split, over all classes.
    """

    classes: tuple[str, ...]
    story: Callable[[int, Generator, int], Story]
    counts: Mapping[str, int]


KINDS = {
    "motion": Kind(tuple(MOTIONS), motion, {"train": 5000, "val": 500, "test": 1000}),
    "order": Kind(
        tuple(f"{name}_first" for name in PAIR), order, {"train": 2000, "val": 500, "test": 1000}
    ),
    "memory": Kind(TOLD_APART, memory, {"train": 4000, "val": 500, "test": 1000}),
}


# ---------------------------------------------------------------- the camera


def placed(plate: Image.Image, x: float, y: float, size: float, angle: float) -> np.ndarray:
    """A plate as it lies in the scene, (SCENE, SCENE, 4) uint8."""
    scale = FACE / 2 / (size * ZOOM)  # pixels of the plate to one of the scene
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    x, y, half = x * ZOOM, y * ZOOM, FACE / 2
    back = (c, s, half - c * x - s * y, -s, c, half + s * x - c * y)
    return np.asarray(
        plate.transform((SCENE, SCENE), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR)
    )


def draw_clip(kind: str, label: int, rng: Generator, frames: int = FRAMES) -> np.ndarray:
    """A clip of a class, (frames, PIXELS, PIXELS, 3) uint8."""
    faces, which, pose = KINDS[kind].story(label, rng, frames)
    plates = []
    for name in faces:
        plates.append(worn(rng, draw_face(name, FACE, int(rng.integers(num_variants(name))))))
    layers = np.zeros((frames, SCENE, SCENE, 4), np.uint8)
    for t in np.flatnonzero(which >= 0):
        layers[t] = placed(plates[which[t]], pose.x[t], pose.y[t], pose.size[t], pose.angle[t])

    brightness = math.exp(rng.normal(math.log(0.6), 0.4))
    behind = math.exp(rng.normal(-0.6, 0.5))
    cast = np.exp(rng.normal(0, 0.1, 3) + rng.normal(0, 0.15) * np.array([1, 0, -1]))
    light = (brightness * cast).astype(np.float32)
    alpha = layers[..., 3:] * np.float32(1 / 255)
    lit = shade(rng, SCENE) * pose.lamp.astype(np.float32)[:, None, None, None]
    background = LINEAR.take(backdrop(rng)) * np.float32(behind)
    scene = background + alpha * (LINEAR.take(layers[..., :3]) * lit - background)

    planes = (scene * light).transpose(0, 3, 1, 2).reshape(-1, SCENE, SCENE)
    seen = through_lens(planes, (PIXELS, PIXELS), rng.uniform(0.35, 0.6))
    seen = seen.reshape(frames, 3, PIXELS, PIXELS).transpose(0, 2, 3, 1)
    grain = rng.standard_normal(seen.shape, np.float32) * np.float32(rng.uniform(0.002, 0.015))
    pixels = np.clip(seen, 0, 1) ** np.float32(1 / GAMMA) + grain
    return (255 * np.clip(pixels, 0, 1)).astype(np.uint8)


# ---------------------------------------------------------------- data sets


def draw_chunk_of_clips(chunk: Chunk, kind: str, frames: int) -> range:
    """Writes one chunk into the array of its split; returns the clips' numbers."""
    classes, number = len(KINDS[kind].classes), tuple(KINDS).index(kind)
    array = np.load(chunk.folder / "clips.npy", mmap_mode="r+")
    for index in range(chunk.start, chunk.stop):
        rng = default_rng((chunk.seed, number, frames, chunk.split, index))
        array[index] = draw_clip(kind, index % classes, rng, frames)
    return range(chunk.start, chunk.stop)


def clips_of(kind: str, frames: int = FRAMES) -> Drawing:
    """root/{split}/clips.npy, (N, frames, PIXELS, PIXELS, 3) uint8, and labels.npy, (N,) int64."""

    def begin(folder: Path, count: int) -> None:
        np.save(folder / "labels.npy", np.arange(count) % len(KINDS[kind].classes))
        shape = (count, frames, PIXELS, PIXELS, 3)
        np.lib.format.open_memmap(folder / "clips.npy", "w+", np.uint8, shape)

    draw = partial(draw_chunk_of_clips, kind=kind, frames=frames)
    return Drawing(draw, KINDS[kind].counts, chunk=50, begin=begin)


def read_dataset(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Clips and labels of a split that is drawn."""
    return tuple(np.load(root / split / f"{name}.npy") for name in ("clips", "labels"))
