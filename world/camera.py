"""The camera that all drawn pictures are taken with: light, lens, exposure, sensor.

It sees linear light, (H, W, 3) float32 in which 1 is white in full sun, and gives the sensor's
bytes.
"""

import io
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.random import Generator, default_rng
from PIL import Image

GAMMA = 2.2
LINEAR = (np.arange(256, dtype=np.float32) / 255) ** GAMMA  # uint8 -> linear light
TEXTURES = 16
SPAN = 64  # pixels of a picture that are seen through one matrix


@cache
def textures(side: int) -> np.ndarray:
    """(TEXTURES, side, side) fractal noise, mean 0, deviation 1, from fine to cloudy."""
    rng = default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = np.inf
    found = []
    for slope in np.linspace(0.7, 2.2, TEXTURES):
        spectrum = np.fft.fft2(rng.standard_normal((side, side))) * frequency**-slope
        texture = np.fft.ifft2(spectrum).real
        found.append((texture - texture.mean()) / texture.std())
    return np.asarray(found, np.float32)


def noise(rng: Generator, side: int, smooth: bool = False) -> np.ndarray:
    """(side, side) window of a texture, mean near 0, deviation near 1."""
    k, y, x = rng.integers((TEXTURES // 2 if smooth else 0, 0, 0), (TEXTURES, side, side))
    return textures(2 * side)[k, y : y + side, x : x + side]


def shade(rng: Generator, side: int) -> np.ndarray | float:
    """Light that falls on the scene, (side, side, 1) in (0, 1]: shadows, leaves, a gradient."""
    kind = rng.random()
    if kind < 0.5:
        return 1.0
    depth = rng.uniform(0.1, 0.8)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    slope = math.tan(rng.uniform(-1.4, 1.4))
    plane = (ramp[:, None] + slope * ramp[None] - rng.normal(0, 0.4)) / math.hypot(1, slope)
    if kind < 0.65:  # the edge of a shadow
        light = np.clip(plane * rng.uniform(2, 12), 0, 1)
    elif kind < 0.8:  # sun through leaves
        light = np.clip(noise(rng, side) * rng.uniform(1, 4) + 0.5, 0, 1)
    else:
        light = np.clip(plane * 0.5 + 0.5, 0, 1)
    return 1 - depth * (1 - light[..., None])


def wear(rng: Generator, face: np.ndarray) -> np.ndarray:
    """Fading, dirt and reflections on a plate; linear light (side, side, 3) in and out."""
    side = len(face)
    if rng.random() < 0.2:
        face = face + rng.uniform(0, 0.3) * (rng.uniform(0.2, 0.7) - face)
    if rng.random() < 0.25:  # the sun bleaches red to orange and blue to grey
        bleached = face.max(axis=-1, keepdims=True) - face
        face = face + bleached * rng.uniform((0, 0, 0), (0.2, 0.65, 0.3)).astype(np.float32)
    if rng.random() < 0.3:
        dirt = np.clip(noise(rng, side) - rng.uniform(0.3, 1.5), 0, 1)[..., None]
        face = face * (1 - rng.uniform(0.2, 0.8) * dirt)
    if rng.random() < 0.2:  # stickers
        face = face.copy()
        for _ in range(rng.integers(1, 4)):
            part = rng.uniform((0.2, 0.2, 0.03, 0.03), (0.8, 0.8, 0.16, 0.25))
            y, x, h, w = (part * side).astype(int)
            face[y : y + h, x : x + w] = rng.uniform(0.1, 1, 3)
    if rng.random() < 0.2:
        glare = np.clip(noise(rng, side, smooth=True) - rng.uniform(0, 1.5), 0, 1)[..., None]
        face = face + rng.uniform(0.1, 0.8) * glare
    return face


def worn(rng: Generator, plate: Image.Image) -> Image.Image:
    """A plate with its years; RGBA in and out."""
    pixels = np.asarray(plate)
    light = np.clip(wear(rng, LINEAR.take(pixels[..., :3])), 0, 1)
    colours = (255 * light ** np.float32(1 / GAMMA)).astype(np.uint8)
    return Image.fromarray(np.dstack((colours, pixels[..., 3])))


def lens(
    length: int, size: int, sigma: float, shift: float, span: slice
) -> tuple[slice, np.ndarray]:
    """Blur, shift and resampling of one axis from `length` pixels to those in `span` of `size`.

    As products of matrices they cost one multiplication an axis. Returns which pixels are seen by
    the span, and their weights (span, seen).
    """
    step = length / size
    reach = 6 * sigma + abs(shift) + 1
    first, end = int((span.start - reach) * step), int((span.stop + reach) * step)
    seen = slice(max(0, first), min(length, end))
    centres = (np.arange(span.start, span.stop) + 0.5) * step + shift * step
    distance = (np.arange(seen.start, seen.stop) + 0.5)[None] - centres[:, None]
    weights = np.exp(-0.5 * (distance / (sigma * step)) ** 2)
    return seen, (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def through_lens(
    planes: np.ndarray, size: tuple[int, int], sigma: float, shifts: Sequence[float] = (0.0, 0.0)
) -> np.ndarray:
    """(C, H, W) light -> (C, *size), blurred by `sigma` and moved by `shifts` of its pixels."""
    _, height, width = planes.shape
    for axis, (length, target) in enumerate(((height, size[0]), (width, size[1]))):
        parts = []
        for start in range(0, target, SPAN):
            span = slice(start, min(start + SPAN, target))
            seen, weights = lens(length, target, sigma, shifts[axis], span)
            parts.append(planes[:, :, seen] @ weights.T if axis else weights @ planes[:, seen])
        planes = np.concatenate(parts, axis + 1)
    return planes


def demosaic(light: np.ndarray) -> np.ndarray:
    """What a sensor sees that has one colour a pixel: red, green, green, blue (Bayer 1976).

    The two others are the mean of the nearest pixels of that colour. What is narrower than two
    pixels takes on colours that it does not have. Linear light (H, W, 3) in and out.
    """
    rows, columns = np.indices(light.shape[:2], sparse=True)
    own = (rows % 2 + columns % 2)[..., None] == np.arange(3)  # 0 red, 1 green, 2 blue
    known = np.pad(np.where(own, light, 0), ((1, 1), (1, 1), (0, 0)), "reflect")
    across = known[:, 1:-1] + (known[:, :-2] + known[:, 2:]) / 2
    seen = across[1:-1] + (across[:-2] + across[2:]) / 2
    seen[..., 1] = known[1:-1, 1:-1, 1] + mean_beside(known[..., 1:2])[..., 0]
    return seen


def sharpen(light: np.ndarray, strength: float) -> np.ndarray:
    """What a camera makes of it: `strength` times what sets a pixel apart from those beside it."""
    beside = mean_beside(np.pad(light, ((1, 1), (1, 1), (0, 0)), "edge"))
    return light + np.float32(strength) * (light - beside)


def mean_beside(padded: np.ndarray) -> np.ndarray:
    """The mean of the four pixels beside each, (H + 2, W + 2, C) to (H, W, C)."""
    down = padded[:-2, 1:-1] + padded[2:, 1:-1]
    return (down + padded[1:-1, :-2] + padded[1:-1, 2:]) / 4


def expose(
    rng: Generator, scene: np.ndarray, size: tuple[int, int],
    motion: float | tuple[float, float] = (2.1, 4.2), veil: float = 0.2, mosaic: bool = False,
) -> np.ndarray:  # fmt: skip
    """Lens, shutter and sensor: (H, W, 3) linear light -> (*size, 3) uint8.

    motion: how far the scene moves while the shutter is open, in its pixels, where it does; down
        and across, which is more where a car drives past.
    veil: the most light that the lens scatters, as a share of the mean.
    mosaic: each pixel of the picture is one of the sensor, which sees one colour; else it is the
        mean of several, as where a picture has been shrunk.
    """
    if rng.random() < 0.3:  # motion: the mean of the scene along a short path
        dy, dx = rng.normal(0, motion, 2)
        path = np.linspace(-0.5, 0.5, 5)
        scene = sum(np.roll(scene, (round(t * dy), round(t * dx)), (0, 1)) for t in path) / 5
    sharpest, sharp = (0.3, 0.5) if mosaic else (0.35, 0.6)  # a mosaic blurs besides
    sigma = rng.uniform(sharpest, sharp) if rng.random() < 0.8 else rng.uniform(0.6, 1.3)
    planes = np.ascontiguousarray(scene.transpose(2, 0, 1))
    if rng.random() < 0.5:  # colour fringes: the lens bends red and blue apart
        red, blue = rng.normal(0, 0.3, (2, 2))
        seen = zip(np.split(planes, 3), (red, (0.0, 0.0), blue), strict=True)
        light = np.concatenate([through_lens(plane, size, sigma, by) for plane, by in seen])
    else:
        light = through_lens(planes, size, sigma)
    haze = rng.uniform(0.0, 0.03) if rng.random() < 0.85 else rng.uniform(0.03, veil)
    light += haze * light.transpose(1, 2, 0).mean()
    light = np.ascontiguousarray(light.transpose(1, 2, 0))
    amplitude = rng.uniform(0.002, 0.015)
    grain = amplitude * rng.standard_normal(light.shape, np.float32)
    if mosaic:
        light = sharpen(demosaic(np.clip(light, 0, 1, out=light)), rng.uniform(0, 0.6))
    np.power(np.clip(light, 0, 1, out=light), 1 / GAMMA, out=light)
    light += grain
    np.clip(light, 0, 1, out=light)
    light *= 255
    pixels = light.astype(np.uint8)
    if rng.random() < 0.04:  # the two fields of an interlaced frame, apart
        pixels[1::2] = np.roll(pixels[1::2], 1, axis=1)
    return pixels


def compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    """What JPEG leaves of them."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
