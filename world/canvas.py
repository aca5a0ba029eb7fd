"""A place in metres, seen by a camera: what is drawn, and what each pixel belongs to, in one go.

The canvas is one RGBA image of twice the picture's side. Its first three channels are colours, its
fourth names the surface that a pixel belongs to: whatever is drawn is drawn into both at once, so
that picture, labels and boxes cannot disagree.

x points right, y up from the road, z ahead of the camera.
"""

import math
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from world.colours import Colour

SKY, BUILDING, POLE, ROAD, PAVEMENT, TREE, SIGN, FENCE, CAR, PEDESTRIAN, BICYCLIST, VOID = range(12)
LABELS = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist", "void",
)  # fmt: skip

Rectangle = tuple[float, float, float, float]  # left, low, right, high, in shares of a wall
Piece = tuple[Rectangle, Colour]
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the canvas
HALF = [255 * (level > 127) for level in range(256)]
STRAIGHT = 150  # metres: a road bends no more behind them
NEAR = 0.5  # metres: what is nearer is pushed there


@dataclass(frozen=True)
class Camera:
    """Position and view; lengths in the picture are shares of the frame's sides."""

    height: float  # metres above the road
    focal: float  # of the width
    horizon: float  # row of the horizon, of the height
    vanish: float  # column in which the road ends, of the width
    roll: float  # radians
    bend: float  # the road leaves its tangent by bend * z ** 2 metres to the right,
    hill: float  # and rises by hill * z ** 2


class Window(NamedTuple):
    """The part of a frame that is drawn; pixels."""

    frame_height: int
    frame_width: int
    top: int
    left: int
    height: int
    width: int


class Surface(NamedTuple):
    """What the light and the labels have to know of one surface."""

    label: int
    depth: float  # metres, for the haze
    # How much coarse, middle and fine texture vary its light.
    rough: tuple[float, float, float] = (0.1, 0.1, 0.1)
    light: float = 1.0  # that falls on it, beside the scene's
    ground: bool = False  # takes cast shadows
    sky: bool = False  # the sky shines through: it stands for twigs, or a fence's gaps


class Note(NamedTuple):
    """An object that wants a box."""

    kind: str
    name: str
    distance: float  # metres ahead of the camera
    whole: float  # pixels of the picture that it would fill alone


class Canvas:
    SUPERSAMPLE = 2

    def __init__(self, camera: Camera, window: Window):
        self.camera, self.window = camera, window
        self.focal = camera.focal * window.frame_width  # pixels
        self.size = (window.width * self.SUPERSAMPLE, window.height * self.SUPERSAMPLE)
        self.image = Image.new("RGBA", self.size, (0, 0, 0, 1))
        self.draw = ImageDraw.Draw(self.image)
        self.surfaces = [Surface(VOID, 1e3, (0, 0, 0), 1)]
        self.notes: dict[int, Note] = {}  # by surface
        self.seen_through: dict[int, int] = {}  # by label: the surface through which sky is seen
        self.surface(SKY, 0.0, sky=True)  # number 1, of which the canvas is full

    def surface(self, label: int, depth: float, *looks: Any, **named: Any) -> int:
        """Number of a new surface, made of what `Surface` holds."""
        if len(self.surfaces) == 256:
            raise ValueError("a canvas holds 255 surfaces")
        self.surfaces.append(Surface(label, depth, *looks, **named))
        return len(self.surfaces) - 1

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) metres -> (..., 2) pixels of the canvas."""
        camera, window = self.camera, self.window
        x, y, z = points[..., 0], points[..., 1], np.maximum(points[..., 2], NEAR)
        bent = np.minimum(z, STRAIGHT)
        squared = bent * (2 * z - bent)  # z ** 2, and its tangent from there
        right = (x + camera.bend * squared) / z
        down = (camera.height - y - camera.hill * squared) / z
        scale = self.SUPERSAMPLE * self.focal
        c, s = scale * math.cos(camera.roll), scale * math.sin(camera.roll)
        placed = np.empty((*x.shape, 2))
        left = camera.vanish * window.frame_width - window.left
        top = camera.horizon * window.frame_height - window.top
        placed[..., 0] = c * right - s * down + self.SUPERSAMPLE * left
        placed[..., 1] = s * right + c * down + self.SUPERSAMPLE * top
        return placed

    def polygons(
        self, points: np.ndarray | Sequence, colours: Colour | Sequence[Colour], surface: int
    ) -> None:
        """Filled polygons from (N, corners, 3) points; one colour, or one for each of them."""
        placed = self.project(np.asarray(points, float)).reshape(len(points), -1).tolist()
        if isinstance(colours[0], int):
            for polygon in placed:
                self.draw.polygon(polygon, (*colours, surface))
        else:
            for polygon, colour in zip(placed, colours, strict=True):
                self.draw.polygon(polygon, (*colour, surface))

    def paint(self, wall: np.ndarray, pieces: Sequence[Piece], surface: int) -> None:
        """Rectangles on a wall, in shares of it, each with its colour, one over the other."""
        if pieces:
            rectangles, colours = zip(*pieces, strict=True)
            self.polygons(patches(wall, rectangles), colours, surface)

    def polygon(self, points: np.ndarray | Sequence, colour: Colour, surface: int) -> None:
        self.polygons([points], colour, surface)

    def line(self, points: Sequence, width: float, colour: Colour, surface: int) -> None:
        """A line through (N, 3) points, `width` metres wide at the first one."""
        points = np.asarray(points, float)
        pixels = self.SUPERSAMPLE * self.focal * width / max(points[0, 2], NEAR)
        placed = self.project(points).ravel().tolist()
        self.draw.line(placed, (*colour, surface), max(1, round(pixels)), "curve")

    def disc(
        self, centre: Sequence[float], radii: tuple[float, float], colour: Colour, surface: int
    ) -> None:
        """An ellipse that faces the camera; radii in metres."""
        x, y = self.project(np.asarray(centre, float)).tolist()
        scale = self.SUPERSAMPLE * self.focal / max(centre[2], NEAR)
        a, b = radii[0] * scale, radii[1] * scale
        self.draw.ellipse((x - a, y - b, x + a, y + b), (*colour, surface))

    def note(
        self, surface: int, kind: str, distance: float, outline: np.ndarray | Sequence
    ) -> None:
        """Notes an object that has just been drawn and wants a box, before others hide it.

        What the window cuts off of it is told from its outline, (..., 3) points in metres.
        """
        placed = self.project(np.asarray(outline, float)).reshape(-1, 2)
        box = self.region(placed)
        if box is None:
            return
        drawn = self.image.crop(box).getchannel("A").histogram()[surface]
        low, high = placed.min(0), placed.max(0)
        within = (high.clip(0, self.size) - low.clip(0, self.size)) / np.maximum(high - low, 1e-9)
        whole = drawn / max(within.prod(), 1e-9) / self.SUPERSAMPLE**2
        self.notes[surface] = Note(kind, kind, distance, float(whole))

    def region(self, placed: np.ndarray) -> Box | None:
        """Box around points on the canvas, as far as it lies there; None if it does not."""
        low = np.clip(np.floor(placed.min(0)), 0, self.size).astype(int)
        high = np.clip(np.ceil(placed.max(0)) + 1, 0, self.size).astype(int)
        return None if (high <= low).any() else (*low.tolist(), *high.tolist())

    def stamp(
        self, colour: Colour | Image.Image, mask: Image.Image, box: Box, surface: int
    ) -> None:
        """Lays a colour or a picture through a soft mask; what it half covers becomes surface."""
        region = self.image.crop(box)
        owners = region.getchannel("A")
        region.paste(colour, (0, 0), mask)
        owners.paste(surface, (0, 0), mask.point(HALF))
        region.putalpha(owners)
        self.image.paste(region, box[:2])

    def claim(
        self, mask: Image.Image, box: Box, surface: int, labels: Container[int] = range(256)
    ) -> None:
        """Gives what a mask (1 or L) covers to a surface, but leaves what is seen there.

        So one labels a fence with all that shows through it; a tree without leaves with the sky and
        what has one of these labels.
        """
        label = self.surfaces[surface].label
        if label not in self.seen_through:
            self.seen_through[label] = self.surface(label, 0.0, sky=True)
        through = self.seen_through[label]
        region = self.image.crop(box)
        owners = region.getchannel("A")
        heirs = [
            through if known.sky else surface if known.label in labels else number
            for number, known in enumerate(self.surfaces)
        ]
        owners.paste(owners.point(heirs + [0] * (256 - len(heirs))), (0, 0), mask)
        region.putalpha(owners)
        self.image.paste(region, box[:2])

    def finish(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Colours (H, W, 3) uint8, each pixel's surface and its share of sky in 255 (H, W) uint8.

        Where the sky is seen the colours are black.
        """
        step = self.SUPERSAMPLE
        owners = self.image.getchannel("A")
        shines = [255 * surface.sky for surface in self.surfaces]
        sky = owners.point(shines + [0] * (256 - len(shines))).reduce(step)
        colours = self.image.convert("RGB").reduce(step)
        return np.asarray(colours), np.asarray(owners)[::step, ::step], np.asarray(sky)


def patches(corners: np.ndarray, rectangles: Sequence[Rectangle]) -> np.ndarray:
    """N rectangles on a wall -> (N, 4, 3) points.

    corners: (4, 3), lower left, lower right, upper right, upper left.
    """
    left, low, right, high = np.asarray(rectangles, float).T
    u = np.stack((left, right, right, left), -1)[..., None]
    v = np.stack((low, low, high, high), -1)[..., None]
    below = corners[0] + u * (corners[1] - corners[0])
    above = corners[3] + u * (corners[2] - corners[3])
    return below + v * (above - below)


def rings(corners: np.ndarray, x: float, y: float, radii: tuple[float, float], sides: int = 12):
    """(sides, 3) points of an ellipse on a wall, all in shares of the wall's sides."""
    angles = np.linspace(0, 2 * math.pi, sides, endpoint=False)
    u, v = x + radii[0] * np.cos(angles)[:, None], y + radii[1] * np.sin(angles)[:, None]
    return corners[0] + u * (corners[1] - corners[0]) + v * (corners[3] - corners[0])


def upright(x: float, z: float, width: float, low: float, high: float) -> np.ndarray:
    """(4, 3) corners of a rectangle that faces the camera."""
    left, right = x - width / 2, x + width / 2
    return np.array([(left, low, z), (right, low, z), (right, high, z), (left, high, z)])
