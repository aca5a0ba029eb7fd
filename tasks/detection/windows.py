"""Training windows: what of a picture is learned from, and what becomes of its boxes.

    window = choose_window((368, 640), boxes, settings, draws)
    pixels = cut(picture, window, (256, 256))         # lab.augmentation
    boxes, seen = move_boxes(boxes, window, 256)

A window is cut at another size than the network's and resized, which is how objects come larger
and smaller than they were drawn. One that is larger than its picture shows all of it, somewhere in
the window, and grey around it: nothing is squashed to fit. Nothing is mirrored: a sign that points
left is another sign than one that points right. Light, colours and blur are those of the sign lab
(`lab.augmentation`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lab.augmentation import Window, add_grain, vary_light

NOISE_SHARE = 0.3  # of the windows that get grain
NOISE = 0.08  # the most, a deviation of pixels in [-1, 1]
DRAWS = 6  # random numbers that `choose_window` takes


@dataclass(frozen=True)
class Windows:
    """How training windows are cut.

    Attributes:
        size: side of a window as the network sees it, in pixels.
        zoom: the least and the most that a window is magnified; its logarithm is uniform.
        stretch: the most that a window is stretched along one side, as a share; along the other it
            shrinks as much.
        around: share of the windows that show a certain box, whole; the others lie anywhere.
        vary: vary light, colours, sharpness and grain; else zoom and stretch are 1 as well.
        each: windows that an epoch takes from each picture.
    """

    size: int = 256
    zoom: tuple[float, float] = (0.6, 1.5)
    stretch: float = 0.1
    around: float = 0.5
    vary: bool = True
    each: int = 1


def choose_window(
    size: tuple[int, int], boxes: np.ndarray, windows: Windows, draws: Sequence[float]
) -> Window:
    """Choose a window of a picture; where it is larger, the picture lies within it.

    Args:
        size: (height, width) of the picture.
        boxes: (n, 4) of those that a window may be cut around.
        draws: DRAWS uniform random numbers in [0, 1).
    """
    chance, choice, zoom, stretch, *places = draws
    side, aspect = float(windows.size), 1.0
    if windows.vary:
        low, high = map(math.log, windows.zoom)
        side /= math.exp(low + zoom * (high - low))
        aspect = (1 + windows.stretch) ** (2 * stretch - 1)
    sides, starts = [side * aspect, side / aspect], []
    chosen = None
    if len(boxes) and chance < windows.around:
        box = boxes[int(choice * len(boxes))]
        chosen = np.floor(box[:2]).astype(int).tolist(), np.ceil(box[2:]).astype(int).tolist()
        sides = [max(own, end - begin) for own, begin, end in zip(sides, *chosen, strict=True)]
        most = (1 + windows.stretch) ** 2 if windows.vary else 1.0  # of one side over the other
        sides = [max(own, other / most) for own, other in zip(sides, reversed(sides), strict=True)]
    lengths = [max(1, round(own)) for own in sides]
    for axis, (length, place) in enumerate(zip(lengths, places, strict=True)):
        low, high = sorted((0, size[1 - axis] - length))
        if chosen is not None:
            low, high = max(low, chosen[1][axis] - length), min(high, chosen[0][axis])
        starts.append(low + int(place * (high - low + 1)))
    return Window(*starts, *lengths)


def move_boxes(boxes: np.ndarray, window: Window, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Move boxes with their picture through `cut`, and clip them to the window.

    Args:
        boxes: (n, 4) left, top, right, bottom in pixels of the picture.

    Returns:
        The boxes in pixels of the window, and the share of each one's area that is inside, (n,).
    """
    left, top, width, height = window
    scale = np.array((size / width, size / height) * 2)
    moved = (boxes - (left, top, left, top)) * scale
    clipped = moved.clip(0, size)
    share = _areas(clipped) / _areas(moved)
    return clipped, share


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def vary_windows(images: Tensor, generator: torch.Generator) -> Tensor:
    """Vary light, colours, sharpness and grain of windows (N, 3, H, W) in [-1, 1]."""
    return add_grain(vary_light(images, generator), generator, NOISE_SHARE, NOISE)
