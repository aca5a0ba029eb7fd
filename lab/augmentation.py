"""How training images are varied: on whole batches, reproducibly from a generator.

    images = augment_batch(images, torch.Generator().manual_seed(0))

Images are (N, C, H, W) in [-1, 1], on any device, and are left as they are; the parameters are
drawn by a generator of the CPU.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lab.runtime import upload

Augmentation = Callable[[Tensor, torch.Generator], Tensor]

# Ranges of the augmentation, each uniform and drawn per image; docs/signs.md says why each.
ROTATION = math.radians(10)
SHIFT = 0.06  # of the image's width
SCALE = 0.12
SHEAR = 0.1
EXPOSURE = 0.5  # of the natural logarithm: from 0.6 to 1.65 times the light
CONTRAST = 0.3
SATURATION = 0.5
BLUR_SHARE = 0.1  # share of images blurred
GREY = 127  # of pixels where a picture does not reach: in the middle, nearly 0 as network input


def augment_batch(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move, light and blur each image of a batch differently; never mirror: left is not right."""
    return vary_light(move(images, generator, ROTATION, SHIFT, SCALE, SHEAR), generator)


def vary_light(images: Tensor, generator: torch.Generator, tint: Tensor | None = None) -> Tensor:
    """Light and blur each image of a batch differently, without moving anything in it.

    Clips, (N, 3, T, H, W), can be given as well: all frames of one are lit and blurred alike.

    Args:
        tint: a matrix for each image, (N, 3, 3), that its colours are multiplied with first.
    """
    count, device = len(images), images.device
    saturation, contrast, exposure = uniform(count, generator, SATURATION, CONTRAST, EXPOSURE)
    blur = torch.rand(count, generator=generator) / BLUR_SHARE
    # All of them go to the device at once: each way there takes as long as what is done there.
    light = torch.stack((1 + saturation, 1 + contrast, exposure.exp(), blur.where(blur < 1, 0)))
    saturation, contrast, exposure, strength = upload(light, device)[:, :, None, None]

    # Saturation mixes with the grey image, contrast stretches about the image's mean, exposure
    # scales the light, i.e. (x + 1): together, per image, one affine map of its colours.
    colours = images.flatten(2)  # (N, 3, H * W)
    grey = torch.full((3, 3), 1 / 3, device=device)
    mix = torch.lerp(grey, torch.eye(3, device=device), saturation)  # (N, 3, 3)
    mean = colours.mean(2, keepdim=True)
    if tint is not None:
        tint = upload(tint, device)
        mix, mean = mix @ tint, tint @ mean
    mean = mean.mean(1, keepdim=True)
    shift = (mean - contrast * mean + 1) * exposure - 1
    images = torch.baddbmm(shift, contrast * exposure * mix, colours).view(images.shape)

    # A blend with the 3x3 mean is a blur of the blend's strength. To choose what is blurred takes a
    # CPU less than to blur all, another device more.
    blurred = (blur < 1).nonzero()[:, 0] if device.type == "cpu" else slice(None)
    if blur.min() < 1:
        sharp = images[blurred]
        frames = sharp.flatten(1, -3)  # a clip's as channels: nothing mixes those
        soft = F.avg_pool2d(frames, 3, 1, 1, count_include_pad=False).view(sharp.shape)
        strength = strength[blurred].view(-1, *(1,) * (images.dim() - 1))
        images[blurred] = torch.lerp(sharp, soft, strength)
    return images.clamp_(-1, 1)


def add_grain(images: Tensor, generator: torch.Generator, share: float, most: float) -> Tensor:
    """Add noise to a share of the images, in place; return them.

    Its deviation differs from image to image; `most` is the largest.
    """
    amount = torch.rand(len(images), generator=generator) / share
    grainy = (amount < 1).nonzero()[:, 0]
    # One pattern a batch: to draw one for each image would cost more than all else.
    grain = upload(torch.randn(images.shape[1:], generator=generator), images.device)
    for index in grainy.tolist():
        images[index].add_(grain, alpha=most * float(amount[index])).clamp_(-1, 1)
    return images


class Window(NamedTuple):
    """A part of a picture, in its pixels; it may reach beyond the picture."""

    left: int
    top: int
    width: int
    height: int


def cut(picture: Tensor, window: Window, size: tuple[int, int]) -> Tensor:
    """Cut a window out of a picture, uint8 (H, W, 3), and resize it: (3, *size) uint8.

    Beyond the picture, it is grey.
    """
    left, top, width, height = window
    part = picture[max(0, top) : top + height, max(0, left) : left + width]
    right, below = left + width - picture.shape[1], top + height - picture.shape[0]
    border = [max(0, beyond) for beyond in (-left, right, -top, below)]
    if any(border):
        part = F.pad(part, (0, 0, *border), value=GREY)
    # In channels_last memory, a CPU resizes bytes several times faster than floats; a GPU knows no
    # other than floats.
    part = part.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)
    if (height, width) != size:
        part = part if part.device.type == "cpu" else part.float()
        part = F.interpolate(part, size, mode="bilinear", antialias=True)
    return part[0] if part.dtype == torch.uint8 else part[0].round_().byte()


def augment_digits(images: Tensor, generator: torch.Generator) -> Tensor:
    """Lean, slant, shift and stretch digits (N, C, H, W) as hands do; never mirror them."""
    return move(images, generator, rotation=math.radians(10), shift=0.06, scale=0.1, shear=0.1)


def mirror_and_crop(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every other image, and crop it anew out of itself with a reflected border.

    The border is an eighth of the side: 4 pixels of CIFAR-10's 32, as is usual (He et al. 2016,
    section 4.2, who pad with zeros).
    """
    count, _, height, width = images.shape

    def positions(side: int) -> Tensor:
        """Return where each pixel along a side comes from, (N, side)."""
        border = side // 8
        offsets = torch.randint(-border, border + 1, (count, 1), generator=generator)
        inside = (torch.arange(side) + offsets).abs()  # reflected at the near end,
        return side - 1 - (side - 1 - inside).abs()  # and at the far one

    rows, columns = positions(height), positions(width)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows, columns = upload(rows, images.device), upload(columns, images.device)
    every = torch.arange(count, device=images.device)
    pixels = images.permute(0, 2, 3, 1)  # (N, H, W, C): a pixel's channels are copied together
    moved = pixels[every[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def move(
    images: Tensor,
    generator: torch.Generator,
    rotation: float,
    shift: float,
    scale: float,
    shear: float,
) -> Tensor:
    """Sample each image through an affine map of its own.

    Args:
        rotation: the most, in radians, either way; so for all ranges.
        shift, scale: of the image's side, along each axis.
        shear: of the height.
    """
    angle, slant, zoom_x, zoom_y, right, down = uniform(
        len(images), generator, rotation, shear, scale, scale, 2 * shift, 2 * shift
    )
    zoom_x, zoom_y = 1 + zoom_x, 1 + zoom_y
    # theta takes output positions to input positions (as in the STN): rotation, shear, scale.
    rows = (
        (zoom_x * angle.cos(), zoom_x * (slant - angle.sin()), right),
        (zoom_y * angle.sin(), zoom_y * angle.cos(), down),
    )
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)  # (N, 2, 3)
    theta = upload(theta, images.device)
    grid = F.affine_grid(theta, images.shape, align_corners=False)
    # Repeat the border where the picture has moved away from it: black wedges would be a cue.
    if images.device.type == "mps":  # which knows of no border before torch 2.13
        return F.grid_sample(images, within_border(grid, images), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def within_border(grid: Tensor, images: Tensor) -> Tensor:
    """Return positions (N, H, W, 2) no farther out than the middles of the outermost pixels.

    To sample there is what a border mode does.
    """
    x, y = (grid[..., axis] for axis in (0, 1))
    most_x, most_y = (1 - 1 / side for side in reversed(images.shape[2:]))
    return torch.stack((x.clamp(-most_x, most_x), y.clamp(-most_y, most_y)), -1)


def uniform(count: int, generator: torch.Generator, *extents: float) -> Tensor:
    """Draw `count` numbers from each [-extent, extent], (extents, count)."""
    numbers = torch.rand(len(extents), count, generator=generator)
    return (numbers * 2 - 1) * torch.tensor(extents)[:, None]
