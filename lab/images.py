"""Pictures in and out: from a file or an address to pixels, from pixels to a network's input.

    preprocess = Preprocess(size=(224, 224), mean=(0.485, 0.456, 0.406), std=..., resize=256)
    batch = preprocess.read([path])            # (1, 3, 224, 224), normalised
    pixels = preprocess.denormalize(batch)     # (1, 3, 224, 224) in [0, 1]

A network's `Preprocess` is the one pair of functions that leads to its input and back; it is
saved in every checkpoint.
"""

import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePosixPath
from threading import Thread
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from lab.console import LabError, say
from lab.folders import printable

DOWNLOAD_LIMIT = 20 * 2**20  # bytes of a fetched picture
DOWNLOAD_SECONDS = 30.0  # for all of it
SILENCE_SECONDS = 10.0  # without a connection or another byte
RESIZED_LIMIT = 2**24  # pixels of a picture made only to be cropped
PNM_HEADER = re.compile(rb"P([56])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")


@dataclass(frozen=True)
class Preprocess:
    """How a picture becomes a network's input, and back.

    Attributes:
        size: (H, W) of the input in pixels.
        mean, std: of each channel of pixels in [0, 1]; their number is that of the channels.
        resize: length of the shorter side in pixels before the centre crop to `size`; None
            squashes the whole picture to `size`.
        bicubic: resize by bicubic interpolation, not by bilinear.
    """

    size: tuple[int, int] = (32, 32)
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    resize: int | None = None
    bicubic: bool = False

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
        """Do to pictures of one size what `fit` does to a picture.

        Args:
            pixels: uint8 (N, H', W', 1 or 3).

        Returns:
            uint8 (N, H, W, C), what `fit` gives to about a level of 255.
        """
        if pixels.shape[3] == 3 and len(self.mean) == 1:  # Pillow's luma, in its fixed point
            weights = torch.tensor([19595, 38470, 7471], device=pixels.device)
            luma = (pixels.int() * weights).sum(3, keepdim=True)
            pixels = ((luma + 2**15) >> 16).byte()
        old = tuple(pixels.shape[1:3])
        new = self.size
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
        """Read files as one batch of network input, (N, C, H, W).

        Raises:
            LabError: a file is no readable image; names it.
        """
        pictures = []
        for path in paths:
            try:
                pictures.append(self.fit(open_image(path)))
            except OSError as error:
                raise LabError(f"{path}: {error.strerror or error}") from error
        return self.normalize(torch.from_numpy(np.stack(pictures)))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels, (N, H, W, C), into network input, (N, C, H, W).

        The result shares its memory's order with the pixels: it is in channels_last layout.
        """
        scale, shift = self._per_channel(pixels.device)
        return pixels.permute(0, 3, 1, 2).float().div_(255 * scale).sub_(shift)

    def denormalize(self, images: Tensor) -> Tensor:
        """Turn network input, (N, C, H, W), into pixels in [0, 1] of the same shape."""
        scale, shift = self._per_channel(images.device)
        return (images + shift) * scale

    def bounds(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return what black and white become, each (C, 1, 1): the range of network input."""
        scale, shift = self._per_channel(device)
        return -shift, 1 / scale - shift

    def _margins(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return where the centre crop of a picture of (H, W) begins: top, left."""
        top, left = (round((old - new) / 2) for old, new in zip(size, self.size, strict=True))
        return top, left

    def _per_channel(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean = torch.tensor(self.mean, device=device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=device).view(-1, 1, 1)
        return std, mean / std


def open_image(path: Path) -> Image.Image:
    """Read any image file, upright (EXIF); RGB, but for plain grey ones ("L").

    Raises:
        OSError: not an image, a damaged one, or a file that cannot be read; the text says which.
    """
    if path.stat().st_size == 0:
        raise OSError("empty file")
    try:
        with Image.open(path) as image:
            if image.format == "PPM":
                _check_length(path.read_bytes())
            image.load()
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I"):  # 16-bit grey; a plain convert() would clip it to white
                image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            return image if image.mode == "L" else image.convert("RGB")
    except Image.UnidentifiedImageError as error:
        raise OSError("not an image") from error
    except Image.DecompressionBombError as error:
        raise OSError("too large to be a photograph") from error
    except Exception as error:  # arbitrary bytes make decoders raise nearly anything
        if getattr(error, "errno", None):  # it is the system that cannot read the file
            raise
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise OSError(f"damaged image ({reason})") from error


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
        named = [
            f"{printable(os.path.relpath(path, folder))} ({why})" for path, why in problems.items()
        ]
        shown = ", ".join(named[:5]) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
        say(f"{folder}: left out {len(named)} of {count:,} files: {shown}")


def to_arrays(pixels: Tensor) -> np.ndarray:
    """Turn pixels (N, C, H, W) in [0, 1] into arrays for drawing, (N, H, W, 3), grey repeated."""
    arrays = pixels.detach().clamp(0, 1).permute(0, 2, 3, 1).float().cpu().numpy()
    return np.broadcast_to(arrays, (*arrays.shape[:3], 3))


def picture_file(source: str | None, folder: Path) -> Path:
    """Return the file of a picture; without a source, a photograph that scikit-learn brings."""
    if source is None:
        return Path(str(files("sklearn.datasets") / "images" / "china.jpg"))
    return image_path(source, folder / "images")


def read_picture(path: Path, size: int | None, preprocess: Preprocess) -> Tensor:
    """Read a whole picture as network input, (1, 3, H, W), its shorter side `size` pixels.

    Args:
        size: None for the picture's own.

    Raises:
        LabError: no readable image.
    """
    try:
        image = open_image(path).convert("RGB")
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from error
    if size is not None:
        sides = [max(1, round(side * size / min(image.size))) for side in image.size]
        image = image.resize(sides, Image.Resampling.BICUBIC)
    return preprocess.normalize(torch.from_numpy(np.array(image))[None])


def save_picture(pixels: Tensor, path: Path) -> None:
    """Save pixels, (1, 3, H, W) in [0, 1], as a file, and say where."""
    array = (to_arrays(pixels)[0] * 255).round().astype(np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path, quality=95)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror or error}") from error
    say(f"Saved {path} ({array.shape[1]}x{array.shape[0]})")


def image_files(sources: Sequence[str], folder: Path) -> list[Path]:
    """Return the images that files, folders (to any depth) and http(s) addresses name.

    Those that cannot be read are named and left out.

    Raises:
        LabError: a source does not exist, or nothing readable is left.
    """
    known = Image.registered_extensions()
    paths: list[Path] = []
    for source in sources:
        if Path(source).is_dir():
            inside = sorted(p for p in Path(source).rglob("*") if p.suffix.lower() in known)
            paths += [path for path in inside if path.is_file()]
        else:
            paths.append(image_path(source, folder))
    readable = []
    for path in paths:
        try:
            open_image(path)
            readable.append(path)
        except OSError as error:
            say(f"{path} is left out: {error.strerror or error}")
    if not readable:
        raise LabError(f"no readable image in {', '.join(sources)}")
    return readable


def image_path(source: str, folder: Path) -> Path:
    """Return the file of an image given as a path or as an http(s) address, fetched to `folder`.

    Raises:
        LabError: no such file, or the address does not lead to an image.
    """
    if "://" in source:
        return fetch_image(source, folder)
    path = Path(source)
    if not path.is_file():
        raise LabError(f"no image {path}; give a file or an http(s) address")
    return path


def fetch_image(url: str, folder: Path) -> Path:
    """Download an image into `folder`, under a name made of letters, digits, `-` and `_`.

    Nothing is written unless the whole body is an image that Pillow can decode.

    Raises:
        LabError: the address is not http(s), not reachable, too slow or too large, or no image.
    """
    body = _download(url)
    try:
        with Image.open(io.BytesIO(body)) as image:
            image.load()
            kind = image.format.lower()
    except Exception as error:  # arbitrary bytes make decoders raise nearly anything
        raise LabError(f"{url} is not an image that can be read") from error
    stem = PurePosixPath(unquote(urlsplit(url).path)).stem
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:60] or "image"
    path = folder / f"{name}.{'jpg' if kind == 'jpeg' else kind}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror}") from error
    return path


def _download(url: str) -> bytes:
    """Return the body behind an http(s) address; redirects lead to such addresses alone."""
    import requests

    fetched: Future[bytes] = Future()

    def fetch() -> None:
        try:
            fetched.set_result(_read_body(url))
        except Exception as error:
            fetched.set_exception(error)

    # A server that sends a byte now and then keeps any read waiting: this one is left behind.
    Thread(target=fetch, daemon=True).start()
    try:
        return fetched.result(DOWNLOAD_SECONDS)
    except TimeoutError as error:
        raise LabError(f"{url} took over {DOWNLOAD_SECONDS:.0f} s; save it by hand") from error
    except (requests.RequestException, ValueError) as error:  # ValueError: a malformed redirect
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise LabError(f"could not fetch {url} ({reason}); give a file instead") from error


def _read_body(url: str) -> bytes:
    import requests

    body = bytearray()
    with requests.get(url, timeout=SILENCE_SECONDS, stream=True) as response:
        response.raise_for_status()
        for chunk in response.iter_content(2**16):
            body += chunk
            if len(body) > DOWNLOAD_LIMIT:
                limit = DOWNLOAD_LIMIT // 2**20
                raise LabError(f"{url} is larger than {limit} MB; give a smaller image")
    return bytes(body)
