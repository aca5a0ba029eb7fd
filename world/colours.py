"""Colours of paint, and what light makes of them."""

from numpy.random import Generator

from world.camera import GAMMA

Colour = tuple[int, int, int]

# Of signs.
WHITE = (238, 238, 236)
BLACK = (24, 24, 26)
GREY = (150, 150, 150)
FADED = (112, 112, 114)  # what a prohibition's end strikes out
RED = (196, 28, 36)
BLUE = (16, 82, 180)
YELLOW = (245, 178, 24)
GREEN = (0, 140, 90)
# Of panes and of paint.
GLASS = ((22, 26, 32), (38, 44, 52), (70, 82, 96), (150, 168, 186), (200, 214, 226))
PAINTS = (
    (200, 30, 36), (20, 80, 180), (250, 190, 30), (20, 140, 80), (240, 240, 238), (20, 20, 22),
)  # fmt: skip


def lit(colour: Colour, light: float) -> Colour:
    """The colour in more or less light."""
    factor = light ** (1 / GAMMA)
    return tuple(min(255, round(channel * factor)) for channel in colour)


def bright(rng: Generator) -> Colour:
    """A colour of paint and print."""
    if rng.random() < 0.6:
        return PAINTS[rng.integers(6)]
    return tuple(rng.integers(10, 245, 3).tolist())
