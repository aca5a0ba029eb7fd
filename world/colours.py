"""Colours of paint, and what light makes of them."""

import numpy as np

from world.camera import GAMMA
from world.faces import Colour

GLASS = ((22, 26, 32), (38, 44, 52), (70, 82, 96), (150, 168, 186), (200, 214, 226))
PAINTS = (
    (200, 30, 36), (20, 80, 180), (250, 190, 30), (20, 140, 80), (240, 240, 238), (20, 20, 22),
)  # fmt: skip


def lit(colour: Colour, light: float) -> Colour:
    """The colour in more or less light."""
    factor = light ** (1 / GAMMA)
    return tuple(min(255, round(channel * factor)) for channel in colour)


def bright(rng: np.random.Generator) -> Colour:
    """A colour of paint and print."""
    if rng.random() < 0.6:
        return PAINTS[rng.integers(6)]
    return tuple(rng.integers(10, 245, 3).tolist())
