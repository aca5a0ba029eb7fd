"""The camera that all drawn pictures are taken with: light, lens, exposure, sensor.

It sees linear light, (H, W, 3) float32 in which 1 is white in full sun, and gives the sensor's
bytes.
"""

import math
from functools import cache

import numpy as np

GAMMA = 2.2
LINEAR = (np.arange(256, dtype=np.float32) / 255) ** GAMMA  # uint8 -> linear light
TEXTURES = 16


@cache
def textures(side: int) -> np.ndarray:
    """(TEXTURES, side, side) fractal noise, mean 0, deviation 1, from fine to cloudy."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequency[0, 0] = np.inf
    found = []
    for slope in np.linspace(0.7, 2.2, TEXTURES):
        spectrum = np.fft.fft2(rng.standard_normal((side, side))) * frequency**-slope
        texture = np.fft.ifft2(spectrum).real
        found.append((texture - texture.mean()) / texture.std())
    return np.asarray(found, np.float32)


def noise(rng: np.random.Generator, side: int, smooth: bool = False) -> np.ndarray:
    """(side, side) window of a texture, mean near 0, deviation near 1."""
    k, y, x = rng.integers((TEXTURES // 2 if smooth else 0, 0, 0), (TEXTURES, side, side))
    return textures(2 * side)[k, y : y + side, x : x + side]


def shade(rng: np.random.Generator, side: int) -> np.ndarray | float:
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


def lens(length: int, size: int, sigma: float, shift: float) -> np.ndarray:
    """(size, length) matrix that blurs one axis of a scene and samples it to `size` pixels.

    As a product of matrices blur, shift and resampling cost one multiplication an axis.
    """
    step = length / size
    centres = (np.arange(size) + 0.5) * step + shift * step
    distance = (np.arange(length) + 0.5)[None] - centres[:, None]
    weights = np.exp(-0.5 * (distance / (sigma * step)) ** 2)
    return (weights / weights.sum(1, keepdims=True)).astype(np.float32)


def expose(rng: np.random.Generator, scene: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Lens, shutter and sensor: (H, W, 3) linear light -> (*size, 3) uint8."""
    if rng.random() < 0.3:  # motion: the mean of the scene along a short path
        dy, dx = rng.normal(0, 3, 2)
        path = np.linspace(-0.5, 0.5, 5)
        scene = sum(np.roll(scene, (round(t * dy), round(t * dx)), (0, 1)) for t in path) / 5
    sigma = rng.uniform(0.35, 0.6) if rng.random() < 0.8 else rng.uniform(0.6, 1.3)
    axes = list(zip(scene.shape[:2], size, strict=True))
    rows, columns = (lens(*axis, sigma, 0.0) for axis in axes)
    planes = np.ascontiguousarray(scene.transpose(2, 0, 1))  # (3, H, W)
    light = rows @ planes @ columns.T  # (3, *size)
    if rng.random() < 0.5:  # colour fringes: the lens bends red and blue apart
        for channel in (0, 2):
            rows, columns = (lens(*axis, sigma, rng.normal(0, 0.3)) for axis in axes)
            light[channel] = rows @ planes[channel] @ columns.T
    light = light.transpose(1, 2, 0)
    haze = rng.uniform(0.0, 0.03) if rng.random() < 0.85 else rng.uniform(0.03, 0.5)
    light = light + haze * light.mean()
    grain = rng.uniform(0.002, 0.015) * rng.standard_normal(light.shape, np.float32)
    light = np.clip(light, 0, 1) ** (1 / GAMMA) + grain
    pixels = (np.clip(light, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.04:  # the two fields of an interlaced frame, apart
        pixels[1::2] = np.roll(pixels[1::2], 1, axis=1)
    return pixels


def misread(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """A fault of the camera in about a fifth of the frames: the colour filter read one step off.

    Red plates turn green and blue ones red; rarely the other way round, or only below some row.
    """
    kind = rng.random()
    if kind < 0.17:
        return np.roll(pixels, 1, axis=2)
    if kind < 0.19:
        return np.roll(pixels, -1, axis=2)
    if kind < 0.21:
        row = int(rng.integers(pixels.shape[0]))
        return np.concatenate([pixels[:row], np.roll(pixels[row:], 1, axis=2)])
    return pixels
