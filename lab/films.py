"""Films: videos, decoded by PyAV, and folders of frames; in, and annotated out.

for image in frames_of(Path("drive.mp4")): ...
annotate(Path("drive.mp4"), Path("out.mp4"), mark)
"""

import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from lab.console import LabError, progress, say
from lab.files import attempt, reason
from lab.folders import in_order, printable
from lab.images import on_white, open_image

VIDEOS = (
    ".mp4", ".avi", ".webm", ".gif", ".mkv", ".mov", ".mpg", ".mpeg", ".m4v", ".wmv", ".asf",
    ".3gp", ".3g2", ".ogv", ".flv", ".mts", ".m2ts", ".vob",
)  # fmt: skip
# May hold one picture or many, which PyAV does not tell; of GIFs without delays it loses frames.
ANIMATED = (".webp", ".apng", ".gif")
RATE = Fraction(25)  # frames a second, of what says no rate
# The first one that this PyAV has, with its options: half the time of x264's own, no larger a file.
CODECS = {"libx264": {"preset": "veryfast"}, "mpeg4": {}}


def is_animated(path: Path) -> bool:
    """True for a file of several pictures that is played by Pillow."""
    if path.suffix.lower() not in ANIMATED:
        return False
    try:
        with Image.open(path) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # arbitrary bytes make decoders raise nearly anything; it may be a frame
        return False


def is_video(path: Path) -> bool:
    """True for a video's file, by its name, and for an animated picture."""
    return path.suffix.lower() in VIDEOS or is_animated(path)


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder, in the order of their names, numbers by value."""
    known = Image.registered_extensions().keys() - set(VIDEOS)
    images = (path for path in folder.iterdir() if path.suffix.lower() in known)
    return in_order(path for path in images if path.name[0] != "." and not is_animated(path))


def clips_in(path: Path) -> Iterator[Path]:
    """Yield the clips at and below a path: videos, and folders with frames, to any depth.

    A link to a folder is followed no further than to its frames: it may lead back here.
    """
    if not path.is_dir():
        if is_video(path):
            yield path
        return
    if frame_files(path):
        yield path
    for inside in in_order(path.iterdir()):
        if inside.name[0] == ".":
            continue
        if not (inside.is_symlink() and inside.is_dir()):
            yield from clips_in(inside)
        elif frame_files(inside):
            yield inside


def is_film(path: Path) -> bool:
    """True for a video's file, by its name, an animated picture, and a folder of frames."""
    return bool(frame_files(path)) if path.is_dir() else is_video(path)


def frames_of(path: Path, stride: int = 1) -> Iterator[Image.Image]:
    """Yield every `stride`-th frame of a video file or of a folder of images.

    Raises:
        OSError: it cannot be read; the text says why.
    """
    if path.is_dir():
        for file in frame_files(path)[::stride]:
            try:
                yield open_image(file)
            except OSError as error:
                raise OSError(f"{printable(file.name)}: {reason(error)}") from error
        return
    if is_animated(path):
        with Image.open(path) as image:
            for frame in islice(ImageSequence.Iterator(image), 0, None, stride):
                yield on_white(frame).convert("RGB")
        return
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise OSError("no video in it")
            for frame in islice(container.decode(video=0), 0, None, stride):
                clear = any(component.is_alpha for component in frame.format.components)
                pixels = frame.to_ndarray(format="rgba" if clear else "rgb24")
                # A phone turns no pixels: it notes how it was held.
                image = Image.fromarray(pixels).rotate(frame.rotation, expand=True)
                yield on_white(image)
    except av.error.FFmpegError as error:
        raise OSError(f"damaged or no video ({error.strerror})") from error


def each_frame(path: Path, label: str) -> Iterator[np.ndarray]:
    """Yield the frames of a film, uint8 (H, W, 3), with progress; a LabError where one is bad."""
    with attempt(f"read {path}"), progress(total=length_and_rate(path)[0], label=label) as bar:
        for image in frames_of(path):
            yield np.array(image.convert("RGB"))
            bar.update()


def length_and_rate(path: Path) -> tuple[int | None, Fraction]:
    """Return a film's frames, where it says how many, and how many it has a second.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        return len(frame_files(path)), RATE
    if is_animated(path):
        with Image.open(path) as image:
            image.load()  # of the first picture, it says how long it is shown
            return image.n_frames, Fraction(1000, round(image.info.get("duration") or 0) or 40)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise OSError("no video in it")
            stream = container.streams.video[0]
            return stream.frames or None, stream.average_rate or RATE
    except av.error.FFmpegError as error:
        raise OSError(f"damaged or no video ({error.strerror})") from error


def annotate(
    path: Path, target: Path, mark: Callable[[np.ndarray, int], np.ndarray],
    began: float | None = None,
) -> int:  # fmt: skip
    """Write a film whose frames are marked; it appears under its name when it is whole.

    Args:
        mark: from a frame, uint8 (H, W, 3), and its number, from 0, to one of the same shape.
        began: when, by time.perf_counter, the work on it did, for the rate said; now if None.

    Returns:
        The number of frames.

    Raises:
        LabError: it cannot be read or written, or has no frame.
    """
    partial = target.with_name(f".{target.name}.partial.mp4")
    began, count = began or time.perf_counter(), 0
    with attempt(f"read {path}"):
        _, rate = length_and_rate(path)
    try:
        with attempt(f"write {target}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            codec = next(name for name in CODECS if name in av.codecs_available)
            with av.open(str(partial), "w") as container:
                stream = container.add_stream(codec, rate=rate, options=CODECS[codec])
                for frame in each_frame(path, f"annotating {path.name}"):
                    marked = mark(frame, count)
                    if count == 0:
                        height, width = (side + side % 2 for side in marked.shape[:2])
                        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                    # Chroma has half the rows and columns: sides are made even.
                    room = [(0, side - own) for side, own in
                            zip((height, width), marked.shape[:2], strict=True)]  # fmt: skip
                    if min(room)[1] < 0:
                        raise LabError(f"{path}: frame {count} is larger than the first")
                    whole = np.pad(marked, (*room, (0, 0)), "edge")
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(whole, "rgb24")))
                    count += 1
                if not count:
                    raise LabError(f"{path} has no frame")
                container.mux(stream.encode())
            partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    seconds = time.perf_counter() - began
    say(f"Saved {target}: {count:,} frames, {count / seconds:.1f} a second")
    return count


def film_name(number: int, path: Path) -> str:
    """Return the name of an annotated film: of two that are called alike, neither is lost."""
    return f"film_{number:03d}_{path.stem[:60]}.mp4"


def films_and_pictures(sources: list[str], folders: bool) -> tuple[list[Path], list[str]]:
    """Return which of what `--image` names are films, and the rest.

    Args:
        folders: those of frames are films, too; and nothing but films is expected.

    Raises:
        LabError: something else is expected to be a film.
    """
    films = [
        path for path in map(Path, sources)
        if path.exists() and is_film(path) and (folders or path.is_file())
        # Most of these are pictures.
        and (folders or path.suffix.lower() not in (".gif", *ANIMATED))
    ]  # fmt: skip
    rest = [source for source in sources if Path(source) not in films]
    if folders and rest:
        raise LabError(f"--film: {rest[0]} is no video and no folder of frames")
    return films, rest
