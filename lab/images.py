"""Pictures in and out: from a file or an address to pixels, from pixels to a network's input.

    preprocess = Preprocess(size=(224, 224), mean=(0.485, 0.456, 0.406), std=..., resize=256)
    batch = preprocess.read([path])            # (1, 3, 224, 224), normalised
    pixels = preprocess.denormalize(batch)     # (1, 3, 224, 224) in [0, 1]

A classifier's `Preprocess` is the one pair of functions that leads to its input and back; it is
saved in its checkpoints. Input of all other networks is `centred`.
"""

import math
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from lab.console import LabError, say
from lab.files import attempt, reason
from lab.folders import printable
from lab.runtime import upload

# Of damaged metadata, of palettes, of many pixels: a picture is read, or named and left out.
warnings.filterwarnings("ignore", module=r"PIL\.")

NARROWEST = 20  # times its shorter side that a picture to be enlarged is long at the most
RESIZED_LIMIT = 2**24  # pixels of a picture made only to be cropped
# What white may be in a file of more than 8 bits, which does not say how many of them are used.
WHITES = (1, *(2**bits - 1 for bits in (8, 10, 12, 14, 16)))
MARGIN, LEAST_MARGIN = 0.1, 5  # of a sign's sides, and in pixels: GTSRB's photographs have it
PNM_HEADER = re.compile(rb"P([56])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes a network's input, and back.

    Before the centre crop to `size`, its shorter side is resized to `resize` pixels; without that,
    the whole picture is squashed to `size`.
    """

    size: tuple[int, int] = (32, 32)  # (H, W) of the input in pixels
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # of each channel of pixels in [0, 1]
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize: int | None = None
    bicubic: bool = False  # how it is resized; else bilinear

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of a picture's pixels."""
        return (*self.size, len(self.mean))

    def fit(self, image: Image.Image) -> np.ndarray:
        """Return a picture at the network's size and channels: uint8 (H, W, C)."""
        height, width, _ = self.shape
        method = Image.Resampling.BICUBIC if self.bicubic else Image.Resampling.BILINEAR
        image = image.convert("L" if len(self.mean) == 1 else "RGB")
        if self.resize is None:
            image = image.resize((width, height), method)
        else:  # the sides cut off and the crop rounded as torchvision does
            whole = [self.resize * side // min(image.size) for side in image.size]
            top, left = self._margins((whole[1], whole[0]))
            crop = (left, top, left + width, top + height)
            if math.prod(whole) <= RESIZED_LIMIT:
                image = image.resize(whole, method).crop(crop)
            else:  # a line, a panorama: only what is kept is made, the same but for rounding
                sides = zip(crop, image.size * 2, whole * 2, strict=True)
                box = [edge * old / new for edge, old, new in sides]
                image = image.resize((width, height), method, box)
        return np.asarray(image).reshape(self.shape)

    def fit_batch(self, pixels: Tensor) -> Tensor:
        """Do to pictures of one size what `fit` does to a picture, to about a level of 255.

        Shape: uint8 (N, H', W', 1 or 3) to uint8 (N, H, W, C).
        """
        if pixels.shape[3] == 3 and len(self.mean) == 1:  # Pillow's luma, in its fixed point
            weights = torch.tensor([19595, 38470, 7471], device=pixels.device)
            luma = (pixels.int() * weights).sum(3, keepdim=True)
            pixels = ((luma + 2**15) >> 16).byte()
        old, new = tuple(pixels.shape[1:3]), self.size
        if self.resize is not None:
            new = tuple(self.resize * side // min(old) for side in old)
        if new != old:
            mode = "bicubic" if self.bicubic else "bilinear"
            images = pixels.permute(0, 3, 1, 2).float()
            # Along x, then along y, to whole levels each time, as Pillow does.
            for size in ((old[0], new[1]), new):
                images = F.interpolate(images, size, mode=mode, antialias=True)
                images = images.add_(0.5).floor_().clamp_(0, 255)
            pixels = images.byte().permute(0, 2, 3, 1)
        (height, width), (top, left) = self.size, self._margins(new)
        pixels = pixels[:, top : top + height, left : left + width]
        return pixels.expand(-1, -1, -1, len(self.mean)).contiguous()

    def read(self, paths: Sequence[Path]) -> Tensor:
        """Read files, as `read_image` does, as one batch of network input, (N, C, H, W)."""
        pictures = [self.fit(read_image(path)) for path in paths]
        return self.normalize(torch.from_numpy(np.stack(pictures)))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels, (N, H, W, C), into network input, (N, C, H, W).

        The result shares its memory's order with the pixels: it is in channels_last layout.
        """
        scale, shift = per_channel(self, pixels.device)
        return pixels.permute(0, 3, 1, 2).float().div_(255 * scale).sub_(shift)

    def denormalize(self, images: Tensor) -> Tensor:
        """Turn network input, (N, C, H, W), into pixels in [0, 1] of the same shape."""
        scale, shift = per_channel(self, images.device)
        return (images + shift) * scale

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return what black and white become, each (C, 1, 1): the range of network input."""
        scale, shift = per_channel(self, device)
        return -shift, 1 / scale - shift

    def _margins(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return where the centre crop of a picture of (H, W) begins: top, left."""
        top, left = (round((old - new) / 2) for old, new in zip(size, self.size, strict=True))
        return top, left


@cache  # to bring them to a GPU takes longer than all that is done with them there
def per_channel(preprocess: Preprocess, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return deviation, and mean over deviation, of each channel, (C, 1, 1)."""
    with torch.inference_mode(False):  # whoever asks first, others may need gradients
        mean = torch.tensor(preprocess.mean).view(-1, 1, 1)
        std = torch.tensor(preprocess.std).view(-1, 1, 1)
        return upload(std, device), upload(mean / std, device)


def centred(pixels: Tensor) -> Tensor:
    """Return uint8 pixels of any shape as network input in [-1, 1], for mean and std of 0.5."""
    return pixels.float().div_(127.5).sub_(1)


def as_input(picture: np.ndarray) -> Tensor:
    """Return a picture, uint8 (H, W, 3), as a batch of `centred` network input, (1, 3, H, W)."""
    return centred(torch.from_numpy(picture).permute(2, 0, 1)[None])


class Unusable(OSError):
    """What a file holds is whole, but nothing that can be shown."""


def open_image(path: Path, upright: bool = True) -> Image.Image:
    """Read any image file; RGB, but for plain grey ones ("L").

    What is transparent is white; more than 8 bits are scaled to 8, as of `grey_levels`.

    Args:
        upright: turned as its EXIF says; else as it is stored.

    Raises:
        OSError: not an image, a damaged one, or a file that cannot be read; the text says which.
    """
    if path.stat().st_size == 0:
        raise OSError("empty file")
    try:
        with Image.open(path) as image:
            if image.format == "PPM":
                _check_length(path.read_bytes())
            deep = ";16" in str(image.tile)
            image.load()
            image = ImageOps.exif_transpose(image) if upright else image
            if image.mode.startswith("I") or image.mode == "F":
                return Image.fromarray(grey_levels(np.asarray(image)))
            bands = zip(image.getbands(), image.split() if deep else (), strict=False)
            if deep and max(band.getextrema()[1] for name, band in bands if name != "A") < 16:
                raise Unusable("the 16-bit colours stay below 4,096: save it with 8 bits a colour")
            image = on_white(image)
            return image if image.mode == "L" else image.convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise OSError("not an image") from error
    except Image.DecompressionBombError as error:
        raise OSError("too large to be a photograph") from error
    except Unusable:
        raise
    except Exception as error:  # arbitrary bytes make decoders raise nearly anything
        if getattr(error, "errno", None):  # it is the system that cannot read the file
            raise
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise OSError(f"damaged image ({reason})") from error


def grey_levels(values: np.ndarray) -> np.ndarray:
    """Return values of 16 or 32 bits, or with a fraction, (H, W), as grey: uint8 of that shape.

    Black is 0, or the least value where that is negative; white the first of `WHITES` that no value
    exceeds, or the greatest value.

    Raises:
        Unusable: some are no finite numbers.
    """
    values = values.astype(np.float32)
    black, greatest = min(float(values.min()), 0.0), float(values.max())
    if not math.isfinite(black - greatest):
        raise Unusable("some of its values are no finite numbers")
    whites = () if black < 0 else (white for white in WHITES if greatest <= white)
    scale = 255 / max(next(iter(whites), greatest) - black, 1e-12)
    return ((values - black) * scale).round().astype(np.uint8)


def on_white(image: Image.Image) -> Image.Image:
    """Return a picture with white where it is transparent, whatever colour hides there."""
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def read_image(path: Path) -> Image.Image:
    """Read an image file as `open_image` does; a LabError names one that cannot be read."""
    try:
        return open_image(path)
    except OSError as error:
        raise LabError(f"{path}: {reason(error)}") from error


def cut_out(image: Image.Image, box: Sequence[float]) -> Image.Image:
    """Return what a box (left, top, right, bottom) of a sign holds, with a margin around it."""
    left, top, right, bottom = box
    x, y = (max(LEAST_MARGIN, MARGIN * side) for side in (right - left, bottom - top))
    return image.crop((round(left - x), round(top - y), round(right + x), round(bottom + y)))


def _check_length(body: bytes) -> None:
    """Raise a ValueError where a binary PPM or PGM is longer or shorter than its header says.

    A copy whose line ends were rewritten is longer, and would be read with shifted colours.
    """
    header = PNM_HEADER.match(body)
    if header is not None:  # else its pixels are written as digits
        kind, width, height, highest = map(int, header.groups())
        channels, depth = (3 if kind == 6 else 1), (2 if highest > 255 else 1)
        expected = header.end() + width * height * channels * depth
        if len(body) != expected:
            raise ValueError(f"{len(body):,} bytes long, not {expected:,}")


def say_left_out(folder: Path, count: int, problems: Mapping[Path, str]) -> None:
    """Name the files, of `count` below a folder, that are left out and why, if there are any."""
    if problems:
        names = (printable(os.path.relpath(path, folder)) for path in problems)
        named = [f"{name} ({why})" for name, why in zip(names, problems.values(), strict=True)]
        shown = ", ".join(named[:5]) + f" and {len(named) - 5} more" * (len(named) > 5)
        say(f"{folder}: left out {len(named)} of {count:,} files: {shown}")


def to_arrays(pixels: Tensor) -> np.ndarray:
    """Turn pixels (N, C, H, W) in [0, 1] into arrays for drawing, (N, H, W, 3), grey repeated."""
    arrays = pixels.detach().clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
    return np.broadcast_to(arrays, (*arrays.shape[:3], 3))


def whole_picture(
    image: Image.Image, size: int | None, preprocess: Preprocess, most: int, name: str
) -> Tensor:
    """Return a whole picture as network input, (1, 3, H, W), its shorter side `size` or its own.

    Args:
        most: pixels, about; a picture that would have more is taken smaller, which is said.
        name: what to call it then.

    Raises:
        LabError: it is to be resized, but is hardly more than a line.
    """
    image = image.convert("RGB")
    scale = 1.0 if size is None else size / min(image.size)
    asked = [max(1, round(side * scale)) for side in image.size]
    if size is not None and max(asked) > NARROWEST * size:
        raise LabError(
            f"{name} of {image.width}x{image.height} pixels is too narrow: it would be resized to "
            f"{asked[0]}x{asked[1]}; cut a part out of it that is nearer to a square"
        )
    sides, pixels = asked, math.prod(asked)
    if pixels > most:
        sides = [max(1, round(side * (most / pixels) ** 0.5)) for side in asked]
        taken, instead = (f"{width}x{height}" for width, height in (sides, asked))
        say(f"{name} is taken at {taken} instead of {instead}: {most:,} pixels are the most")
    if tuple(sides) != image.size:
        image = image.resize(sides, Image.Resampling.BICUBIC)
    return preprocess.normalize(torch.from_numpy(np.array(image))[None])


def save_picture(pixels: Tensor, path: Path) -> None:
    """Save pixels, (1, 3, H, W) in [0, 1], as a file, and say where."""
    array = (to_arrays(pixels)[0] * 255).round().astype(np.uint8)
    with attempt(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, quality=95)
    say(f"Saved {path} ({array.shape[1]}x{array.shape[0]})")
