"""What a label image says: its colours, its classes, and the number that counts for nothing.

A label image is a PNG of numbers, with or without a palette, or one of colours. Numbers are read
as numbers: the palette of a PNG only says how they are shown, and an alpha channel nothing. Colours
are looked up in the palette of the data set; where it has none, only those that are grey are
numbers, and others are nobody's guess.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lab.console import LabError
from world.canvas import LABELS
from world.street import PALETTE

IGNORED = 255  # in arrays of labels: nobody is asked what is there
# Names of the classes of a mask, black and white: where there is nothing else, 255 is no gap.
BLACK_AND_WHITE = ("0", "255")
CAMVID_CLASSES = LABELS[:-1]  # the last one is "not labelled"

Colour = tuple[int, int, int]


def voc_colours(count: int) -> list[Colour]:
    """Return the colours of VOC's palette, which spread a number's bits over three channels."""
    colours = []
    for number in range(count):
        channels = [0, 0, 0]
        for place in range(8):
            for channel in range(3):
                channels[channel] |= (number >> channel & 1) << (7 - place)
            number >>= 3
        colours.append(tuple(channels))
    return colours


VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "potted plant", "sheep", "sofa",
    "train", "tv/monitor",
)  # fmt: skip
VOC_COLORMAP = voc_colours(len(VOC_CLASSES))
VOC_OPEN = (224, 224, 192)  # the colour of 255, a band around each object


def colours_of(classes: Sequence[str]) -> list[Colour]:
    """Return the colours that classes are shown in: CamVid's own, or VOC's."""
    if tuple(classes) == CAMVID_CLASSES:
        return list(PALETTE[:-1])
    return voc_colours(len(classes))


def read_label(path: Path, count: int, ignored: int, colours: Sequence[Colour]) -> np.ndarray:
    """Read a label image: uint8 (H, W), classes from 0, and IGNORED.

    Args:
        count: of the classes there are.
        ignored: the file's number, besides 255, of what is not labelled.
        colours: of the numbers, for an image of colours; none where nobody says them.

    Raises:
        OSError: no image, or a damaged one.
        LabError: it holds numbers or colours that are no class, or colours that nobody knows.
    """
    levels = bool(colours) and all(len(set(colour)) == 1 for colour in colours)
    try:
        with Image.open(path) as image:
            image.load()
            image = image.convert("L") if image.mode == "LA" else image
            numbered = image.mode in ("P", "L", "1") or image.mode.startswith("I")
            coloured = not numbered or (levels and image.mode in ("L", "1"))
            pixels = np.array(image.convert("RGB") if coloured else image)
    except OSError:
        raise
    except Exception as error:  # arbitrary bytes make decoders raise nearly anything
        raise OSError(f"damaged image ({type(error).__name__})") from error
    if coloured and not colours and not np.ptp(pixels, 2).any():  # grey, written as colours
        coloured, pixels = False, pixels[:, :, 0]
    numbers = numbers_of(pixels, colours, path) if coloured else pixels
    present = np.bincount(numbers.ravel().astype(np.intp).clip(0, IGNORED + 1)).nonzero()[0]
    if unknown := sorted(set(present[present >= count]) - {ignored, IGNORED}):
        raise LabError(
            f"{path} labels class {unknown[0]}, but the {count} classes are 0 to {count - 1}"
        )
    numbers = numbers.astype(np.uint8)
    numbers[numbers == ignored] = IGNORED
    return numbers


def numbers_of(pixels: np.ndarray, colours: Sequence[Colour], path: Path) -> np.ndarray:
    """Return the number of each pixel's colour, uint8 (H, W).

    Args:
        pixels: uint8 (H, W, 3).
        path: of the image, for the error.

    Raises:
        LabError: a colour is in no palette, or there is no palette.
    """
    if not colours:
        some = ", ".join(
            map(str, map(tuple, np.unique(pixels.reshape(-1, 3), axis=0)[:3].tolist()))
        )
        raise LabError(
            f"{path} labels by colours, and nothing says what they stand for: beside train/, give "
            f"classes.txt a line a class, with its red, green and blue; here there are {some}"
        )
    codes = (pixels.astype(np.int64) << (16, 8, 0)).sum(2)
    known = np.array([red << 16 | green << 8 | blue for red, green, blue in colours], np.int64)
    order = known.argsort()
    places = np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)
    numbers = order[places]
    wrong = np.argwhere(known[numbers] != codes)
    if len(wrong):
        row, column = wrong[0]
        colour = ", ".join(map(str, pixels[row, column]))
        raise LabError(
            f"{path} has the colour ({colour}) at {column}, {row}, which is in no palette of the "
            "data set"
        )
    return numbers.astype(np.uint8)
