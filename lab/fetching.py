"""Images that somebody names: files, folders, http(s) addresses.

for path, image in given_images(["photo.jpg", "folder", "https://host/photo.jpg"]): ...
"""

import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from importlib.resources import files
from itertools import chain, count
from pathlib import Path, PurePosixPath
from threading import Thread
from urllib.parse import unquote, urlsplit

import requests
from PIL import Image

from lab.console import LabError, say
from lab.files import attempt, reason
from lab.flags import VISUALIZED, plain_name
from lab.folders import in_order
from lab.images import open_image

DOWNLOAD_LIMIT = 20 * 2**20  # bytes of a fetched picture
DOWNLOAD_SECONDS = 30.0  # for all of it
SILENCE_SECONDS = 10.0  # without a connection or another byte


def given_images(sources: Sequence[str]) -> Iterator[tuple[Path, Image.Image]]:
    """Yield the images that files, folders (to any depth) and http(s) addresses name.

    Those that cannot be read are named and left out.

    Raises:
        LabError: a source does not exist, or none of them can be read.
    """
    known = Image.registered_extensions()
    paths: list[Path] = []
    for source in sources:
        if Path(source).is_dir():
            inside = in_order(p for p in Path(source).rglob("*") if p.suffix.lower() in known)
            paths += [path for path in inside if path.is_file()]
        else:
            paths.append(_file_of(source, VISUALIZED / "images"))
    readable = 0
    for path in paths:
        try:
            image = open_image(path)
        except OSError as error:
            say(f"{path} is left out: {reason(error)}")
            continue
        readable += 1
        _say_frames(path)
        yield path, image
    if not readable:
        raise LabError(f"no readable image in {', '.join(sources)}")


def _say_frames(path: Path) -> None:
    """Say of an image file that shows several pictures that the first is looked at."""
    frames = 1
    with suppress(Exception), Image.open(path) as image:  # what is wrong with it, its reader says
        if image.format != "MPO":  # a phone's second picture is the first in small
            frames = getattr(image, "n_frames", 1)
    if frames > 1:
        say(f"{path.name}: of {frames} frames the first is looked at")


def name_of(sources: Sequence[str]) -> str:
    """Return what was given as a part of a file's name."""
    first, *others = (PurePosixPath(urlsplit(source).path).stem for source in sources)
    return plain_name(first) + f"_and_{len(others)}_more" * bool(others)


def picture_file(source: str | None, folder: Path) -> Path:
    """Return the file of a picture; without a source, a photograph that scikit-learn brings."""
    if source is None:
        return Path(str(files("sklearn.datasets") / "images" / "china.jpg"))
    return image_path(source, folder / "images")


def image_path(source: str, folder: Path) -> Path:
    """Return the file of an image given as a path or as an http(s) address, fetched to `folder`.

    Raises:
        LabError: no such file, or the address does not lead to an image.
    """
    path = _file_of(source, folder)
    _say_frames(path)
    return path


def _file_of(source: str, folder: Path) -> Path:
    """Return the file that a path or an address names, as `image_path` does."""
    if "://" in source:
        return fetch_image(source, folder)
    path = Path(source)
    if not path.is_file():
        raise LabError(f"no image {path}; give a file or an http(s) address")
    return path


def fetch_image(url: str, folder: Path) -> Path:
    """Download an image into `folder`, under a name made of letters, digits, `-` and `_`.

    Nothing is written unless the whole body is an image that Pillow can decode; else a LabError
    says what is wrong.
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
    ending = "jpg" if kind == "jpeg" else kind
    names = chain([name], (f"{name}_{number}" for number in count(2)))
    paths = (folder / f"{own}.{ending}" for own in names)
    with attempt(f"write to {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        # Of two pictures that are called alike, neither is lost.
        path = next(p for p in paths if not p.exists() or p.read_bytes() == body)
        path.write_bytes(body)
    return path


def _download(url: str) -> bytes:
    """Return the body behind an http(s) address; redirects lead to such addresses alone."""
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
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise LabError(f"could not fetch {url} ({why}); give a file instead") from error


def _read_body(url: str) -> bytes:
    body = bytearray()
    with requests.get(url, timeout=SILENCE_SECONDS, stream=True) as response:
        response.raise_for_status()
        for chunk in response.iter_content(2**16):
            body += chunk
            if len(body) > DOWNLOAD_LIMIT:
                raise LabError(
                    f"{url} is larger than {DOWNLOAD_LIMIT // 2**20} MB; give a smaller image"
                )
    return bytes(body)
