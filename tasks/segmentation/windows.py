"""Training windows: which part of a picture is learned from, and how its camera varies.

    window = choose_window((368, 640), settings, draws)
    pixels, labels = cut_window(picture, labels, window, settings.size)
    images = vary_camera(images, generator)

Picture and label move with one draw; labels are never interpolated: what is halfway from road to
tree is no class in between. Windows are mirrored, unlike those that signs are read in: a street
seen in a mirror is a street, traffic merely keeps to the other side, and all signs are one class.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.augmentation import GREY, Window, add_grain, cut, uniform, vary_light
from lab.runtime import upload
from tasks.segmentation.labels import IGNORED

DRAWS = 7  # random numbers that `choose_window` takes
CAST = 0.2  # of the light of each channel, in its natural logarithm
MIXED = 0.15  # of a channel that each other one gives to it or takes, at most
GREY_SHARE = 0.15  # of the images, which have no colour at all
CURVE = 0.35  # bend of the tone curve: most that mid-grey moves, in pixels of [-1, 1]
SHADE_SHARE, SHADE = 0.5, 0.5  # of the images that light falls on unevenly; of its logarithm
SHADE_GRID = (4, 5)  # places, down and across, where that light is drawn
BLUR_SHARE = 0.25  # of the images, which a camera of half as many rows has taken
NOISE_SHARE, NOISE = 0.5, 0.12  # of the images that get grain; the most, a deviation


@dataclass(frozen=True)
class Windows:
    """How training windows are cut.

    Attributes:
        size: (height, width) of a window as the network sees it, in pixels.
        zoom: the least and the most that a window is magnified; its logarithm is uniform.
        stretch: the most that one side is stretched against the other, as a share.
        each: windows that an epoch takes from each picture.
        vary: magnify, stretch, mirror, and vary the camera; else windows lie anywhere, no more.
        coarse: epochs, the first ones, in which windows are `halved`.
    """

    size: tuple[int, int] = (192, 320)
    zoom: tuple[float, float] = (0.5, 2.0)
    stretch: float = 0.15
    each: int = 1
    vary: bool = True
    coarse: int = 0

    def halved(self) -> Self:
        """Return windows of half as many rows and columns that show as much."""
        (height, width), (low, high) = self.size, self.zoom
        return replace(self, size=(height // 2, width // 2), zoom=(low / 2, high / 2))


@dataclass(frozen=True)
class Cut:
    """What becomes of a picture.

    Attributes:
        region: of the picture, in its pixels.
        size: (height, width) that it is resized to, in the window's pixels.
        corner: (top, left) of it there; what it leaves of the window is not labelled.
        mirrored: left and right are exchanged.
    """

    region: Window
    size: tuple[int, int]
    corner: tuple[int, int]
    mirrored: bool


def choose_window(size: tuple[int, int], windows: Windows, draws: Sequence[float]) -> Cut:
    """Choose a window of a picture; where it is larger than the picture, that lies within it.

    Args:
        size: (height, width) of the picture.
        draws: DRAWS uniform random numbers in [0, 1).
    """
    zoom, stretch, mirror, *places = draws
    scale, aspect = 1.0, 1.0
    if windows.vary:
        low, high = map(math.log, windows.zoom)
        scale = math.exp(low + zoom * (high - low))
        aspect = (1 + windows.stretch) ** (stretch - 0.5)
    starts, lengths, shown, corners = [], [], [], []
    for axis, (whole, target) in enumerate(zip(size, windows.size, strict=True)):
        along = scale * (aspect if axis else 1 / aspect)
        length = max(1, min(round(target / along), whole))
        side = max(1, min(round(length * along), target))
        if length < whole:  # the window is full
            side = target
        starts.append(int(places[axis] * (whole - length + 1)))
        corners.append(int(places[2 + axis] * (target - side + 1)))
        lengths.append(length)
        shown.append(side)
    region = Window(starts[1], starts[0], lengths[1], lengths[0])
    mirrored = windows.vary and mirror < 0.5
    return Cut(region, tuple(shown), tuple(corners), mirrored)


def cut_window(
    picture: Tensor, labels: Tensor, chosen: Cut, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Cut a window out of a picture and its labels alike.

    Args:
        picture, labels: uint8 (H, W, 3) and (H, W).
        size: (height, width) of the window.

    Returns:
        uint8 (3, *size), grey beyond the picture, and uint8 (*size), IGNORED there.
    """
    (left, top, width, height), (tall, wide) = chosen.region, chosen.size
    pixels = cut(picture, chosen.region, chosen.size)

    def middles(start: int, length: int, count: int) -> Tensor:
        """Return the pixel under the middle of each new one: of (k + 1/2) length / count."""
        odd = 2 * torch.arange(count, device=labels.device) + 1
        return start + odd * length // (2 * count)

    kept = labels[middles(top, height, tall)[:, None], middles(left, width, wide)]
    if chosen.mirrored:
        pixels, kept = pixels.flip(2), kept.flip(1)
    if chosen.size == size:
        return pixels, kept
    down, right = chosen.corner
    whole = pixels.new_full((3, *size), GREY)
    marked = labels.new_full(size, IGNORED)
    whole[:, down : down + tall, right : right + wide] = pixels
    marked[down : down + tall, right : right + wide] = kept
    return whole, marked


def vary_camera(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vary all that differs from camera to camera, and from a drawing to a photograph.

    Uneven light, the colour of the light, the tone curve, which colours there are, and what
    `vary_light` varies; blur and grain. It goes further than cameras do: what is learned must not
    hang on any of these.

    Args:
        images: (N, 3, H, W) in [-1, 1]; changed in place.
        generator: of the CPU.

    Returns:
        A batch of the same shape and range.
    """
    count, device = len(images), images.device
    cast = upload(uniform(3 * count, generator, CAST).view(count, 3, 1, 1).exp(), device)
    torch.addcmul(cast - 1, images, cast, out=images)  # scales the light, i.e. (x + 1)
    shades = uniform(count * math.prod(SHADE_GRID), generator, SHADE).view(count, 1, *SHADE_GRID)
    for index in (torch.rand(count, generator=generator) < SHADE_SHARE).nonzero()[:, 0].tolist():
        light = upload(shades[index][None].exp(), device)
        light = F.interpolate(light, images.shape[2:], mode="bilinear", align_corners=True)
        torch.addcmul(light[0] - 1, images[index], light[0], out=images[index])
    images.clamp_(-1, 1)
    # A parabola through black and white, which leaves both where they are: a gamma, but cheaper.
    bend = upload(uniform(count, generator, CURVE).view(-1, 1, 1, 1), device)
    images.addcmul_(images.square(), -bend).add_(bend)
    images = vary_light(images, generator, other_colours(count, generator))
    for index in (torch.rand(count, generator=generator) < BLUR_SHARE).nonzero()[:, 0].tolist():
        half = F.interpolate(images[index][None], scale_factor=0.5, mode="bilinear")
        images[index] = F.interpolate(half, images.shape[2:], mode="bilinear")[0]
    return add_grain(images, generator, NOISE_SHARE, NOISE)


def other_colours(count: int, generator: torch.Generator) -> Tensor:
    """Return what makes images of other colours, or of none, (N, 3, 3); white stays white."""
    mix = torch.eye(3) + uniform(9 * count, generator, MIXED).view(count, 3, 3)
    mix[torch.rand(count, generator=generator) < GREY_SHARE] = 1
    return mix / mix.sum(2, keepdim=True)
