"""Light: what a drawn street sends to the camera. Textures, shadows, sky, haze, exposure."""

import math
from functools import cache

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from world.camera import GAMMA, LINEAR, textures
from world.canvas import SIGN, Canvas
from world.ground import FAR, strip
from world.scene import Scene, Weather

FLARE = 1.6  # light above it is lost in the lens
READABLE = (0.045, 2.2)  # light of a white plate in the photograph; beyond nobody can read it
GROUNDED = ("car", "van", "lorry", "bus", "person", "cyclist", "box")  # dark below
UNLIT = 215  # of 255, of the light: what they take from the ground there
TILE = 256  # pixels; textures repeat after them


@cache
def wide_textures(repeats: int) -> np.ndarray:
    """(16, TILE, repeats TILE): the textures side by side with themselves."""
    return np.tile(textures(TILE), repeats)


def field(
    rng: Generator, shape: tuple[int, int], low: int, high: int, stretch: int = 1
) -> np.ndarray:
    """(H, W) window of an endless texture between the roughness `low` and `high` of 16.

    stretch: how much wider than high its grain is.
    """
    k, y, x = rng.integers((low, 0, 0), (high, TILE, TILE)).tolist()
    width = -(-shape[1] // stretch)
    texture = wide_textures(-(-width // TILE) + 1)[k]
    window = texture.take(range(y, y + shape[0]), 0, mode="wrap")[:, x : x + width]
    return window if stretch == 1 else window.repeat(stretch, 1)[:, : shape[1]]


def shine(
    scene: Scene, canvas: Canvas, layers: tuple[np.ndarray, np.ndarray, np.ndarray], rng: Generator
) -> np.ndarray:
    """Linear light (3, H, W) float32 that comes from the scene: textures, shadows, sky, haze.

    layers: what `Canvas.finish` gives.
    """
    colours, surfaces, sky = layers
    weather, shape = scene.weather, surfaces.shape
    table = (np.array(column, np.float32) for column in zip(*canvas.surfaces, strict=True))
    labels, depth, rough, lights, ground, _ = table
    # Photographs are more contrasty than paint is.
    tones = LINEAR ** np.float32(rng.uniform(0.95, 1.5))
    light = tones.take(np.ascontiguousarray(colours.transpose(2, 0, 1)))

    # Textures and shadows.
    gain = lights.take(surfaces)
    for k, (low, high) in enumerate(((10, 16), (5, 10), (0, 5))):
        gain *= 1 + rough[:, k].take(surfaces) * field(rng, shape, low, high)
    ground = ground.take(surfaces)
    gain *= 1 + rng.uniform(0.02, 0.2) * ground * field(rng, shape, 0, 7, stretch=4)
    gain *= 1 - ground * contact(scene, canvas)
    if weather.shadow:
        gain *= 1 - weather.shadow * ground * shadows(scene, canvas, rng)
    light *= np.clip(gain, 0.08, 3, out=gain)
    hue = rng.uniform(0.02, 0.12) * field(rng, shape, 6, 14)
    light[0] *= 1 + hue
    light[2] *= 1 - hue

    # Air, and the sky that a wet road mirrors the more the flatter one looks on it.
    height = canvas.window.frame_height
    below = np.arange(shape[0], dtype=np.float32) + canvas.window.top
    below = below / height - scene.camera.horizon
    air = np.array([0.55, 0.6, 0.68], np.float32)[:, None, None] * weather.brightness
    if weather.wet:
        mirrored = weather.wet * np.exp(-4 * np.maximum(below, 0))[:, None] * ground
        light += np.maximum(0.5 + 0.1 * field(rng, shape, 0, 7, stretch=4), 0) * mirrored * air
    through = np.exp(-weather.haze * depth).take(surfaces)
    eye = scene.camera.height
    along = eye / np.maximum(below * height / canvas.focal, eye / FAR)
    through = np.where(ground > 0, np.exp(-weather.haze * along)[:, None], through)
    light = air + through * (light - air)

    lowest = int(np.flatnonzero(sky.any(1)).max(initial=-1)) + 1
    if lowest:
        share = sky[:lowest] * np.float32(1 / 255)
        seen = sky_light(weather, rng, -below[:lowest], shape[1])
        light[:, :lowest] += share * (seen - light[:, :lowest])

    light *= np.array(weather.cast, np.float32)[:, None, None]
    if rng.random() < 0.5:  # the lens lets less light through at its corners
        y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
        light *= 1 - rng.uniform(0.1, 0.5) * (y[:, None] ** 2 + x**2) / 2
    return expose(light, weather.grey, labels, lights, surfaces, sky)


def expose(
    light: np.ndarray, grey: float, labels: np.ndarray, lights: np.ndarray,
    surfaces: np.ndarray, sky: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Light (3, H, W) as the camera is set to it; changed in place."""
    # The exposure is measured on what is not sky.
    measured = light[:, ::8, ::8][:, sky[::8, ::8] < 128]
    exposure = meter(measured if measured.size > 100 else light, grey)
    white = np.maximum(lights, 1e-3) * exposure
    white /= np.clip(white, *READABLE)
    light *= exposure / np.where(labels == SIGN, white, 1).astype(np.float32).take(surfaces)
    return np.minimum(light, FLARE, out=light)


def sky_light(weather: Weather, rng: Generator, above: np.ndarray, width: int) -> np.ndarray:
    """(3, H, W) light; `above` (H,) is the height over the horizon in shares of the frame's."""
    shape = len(above), width
    height = np.maximum(above, 0)[:, None]
    white = np.array([0.95, 0.97, 1.0], np.float32)[:, None, None]
    blue = rng.uniform((0.1, 0.32, 0.75), (0.4, 0.6, 1.0)).astype(np.float32)[:, None, None]
    clear = white + (blue - white) * np.clip(height * rng.uniform(1.5, 4), 0, 1)
    if weather.sky == "clear":
        return np.float32(weather.brightness) * np.broadcast_to(clear, (3, *shape))
    clouds = field(rng, shape, 11, 16, 2) + 0.3 * field(rng, shape, 6, 12)
    if weather.sky == "clouds":
        cover = np.clip(clouds * rng.uniform(0.8, 3) + rng.uniform(0, 1), 0, 1)
        sky = clear + (white * rng.uniform(0.7, 1.4) - clear) * cover
    else:
        grey = np.maximum(1 + rng.uniform(0.02, 0.25) * clouds, 0.2)
        sky = white * grey * (1 - rng.uniform(0, 0.8) * height)
    return np.float32(weather.brightness) * sky


def shadows(scene: Scene, canvas: Canvas, rng: Generator) -> np.ndarray:
    """(H, W) in [0, 1]: where the ground lies in the shadow of what stands on it."""
    image = Image.new("L", (canvas.window.width, canvas.window.height))
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        if thing.kind != "house" and thing.height <= 2 and not thing.length:
            continue
        half = {"house": 0, "lamp": 0.08, "post": 0.08}.get(thing.kind, thing.width / 2)
        left, right = thing.x - half - scene.weather.sun * thing.height, thing.x + half
        ends = np.array([thing.z, thing.z + max(thing.length, 2 * half)])
        points = canvas.project(strip(right, left, np.maximum(ends, 1))[0])
        draw.polygon((points / canvas.SUPERSAMPLE).ravel().tolist(), 255)
    soft = np.asarray(image, np.float32) / 255
    if rng.random() < 0.6:  # leaves let some of it through
        soft = soft * np.clip(0.7 + 0.6 * field(rng, soft.shape, 4, 10), 0, 1)
    return soft


def contact(scene: Scene, canvas: Canvas) -> np.ndarray:
    """(H, W) share of the light that the ground lacks under vehicles and feet, in any weather."""
    image = Image.new("L", (canvas.window.width, canvas.window.height))
    draw = ImageDraw.Draw(image)
    for thing in scene.things:
        if thing.kind not in GROUNDED or thing.z < 0:
            continue
        half, c, s = thing.length / 2, abs(math.cos(thing.turn)), abs(math.sin(thing.turn))
        across, along = c * thing.width / 2 + s * half, s * thing.width / 2 + c * half
        middle = thing.z + half
        ends = np.maximum([middle - along - 0.15, middle + along + 0.15], 1)
        points = canvas.project(strip(thing.x - across - 0.1, thing.x + across + 0.1, ends)[0])
        draw.polygon((points / canvas.SUPERSAMPLE).ravel().tolist(), UNLIT)
    soft = image.filter(ImageFilter.GaussianBlur(canvas.focal / 400))
    return np.asarray(soft, np.float32) / 255


def meter(light: np.ndarray, grey: float) -> float:
    """The factor that gives `light` the mean level `grey` in a photograph."""
    low, high = -6.0, 6.0
    for _ in range(10):
        middle = (low + high) / 2
        dark = (np.minimum(light * math.exp(middle), 1) ** (1 / GAMMA)).mean() < grey
        low, high = (middle, high) if dark else (low, middle)
    return math.exp(low)
