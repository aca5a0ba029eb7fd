"""What visualize.py shows of style transfer, and the course of the picture that style.py varies."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor

from lab.console import counted
from lab.images import Preprocess, open_image, to_arrays
from lab.pictures import Grid, Picture, Tile
from tasks import ViewFlags
from tasks.annotated import choose_shown, own_picture, shrink
from tasks.style.networks import repaint
from tasks.style.picture import Course, losses_in_words
from tasks.trained import Trained

LONGEST = 640  # pixels of the longer side of what is shown; what is larger is shrunk
SIDE = 2.4  # inches of a picture's height


def view_painted(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """Photographs beside what the network makes of them, and the picture it has its style from."""
    if flags.image is None:
        photographs = sample_photographs(flags)
    else:
        pixels, file = own_picture(flags, LONGEST)
        photographs = {file: pixels}
    rows = []
    for caption, pixels in photographs.items():
        images = Preprocess().normalize(torch.from_numpy(pixels)[None])
        painted = to_arrays(repaint(trained.network, images, trained.runtime))[0]
        rows.append([Tile(pixels, caption), Tile(painted, "painted")])
    style = Path(trained.state.get("flags", {}).get("style", ""))
    if style.is_file():  # one that has an address may be gone
        rows[0].append(Tile(shrink(open_image(style), LONGEST), "style"))
    title = f"Photographs in the manner of {style.stem or 'one picture'}, by one pass"
    yield Picture("painted/painted.jpg", title, (Grid(rows, side=SIDE),))


def sample_photographs(flags: ViewFlags) -> dict[str, np.ndarray]:
    """Return those that scikit-learn brings, uint8 (H, W, 3), or the one of `--image_idx`."""
    samples = load_sample_images()
    count = len(samples.images)
    return {  # copied: torch warns of what cannot be written
        Path(samples.filenames[index]).stem: samples.images[index].copy()
        for index in choose_shown(flags, [1] * count, count)
    }


def draw_course(course: Course, content: Tensor, style_file: Path, preprocess: Preprocess) -> Grid:
    """Return a strip: content, style, and the picture at some steps with its losses.

    Args:
        content: network input, (1, 3, H, W).
        preprocess: from pictures to it and back.
    """

    def tile(picture: Tensor, caption: str) -> Tile:
        return Tile(to_arrays(preprocess.denormalize(picture))[0], caption)

    tiles = [tile(content, "content"), Tile(shrink(open_image(style_file), LONGEST), "style")]
    for step, picture in course.pictures.items():
        losses = losses_in_words(course.losses[step]).replace(", ", "\n")
        tiles.append(tile(picture, f"after {counted(step, 'steps')}\n{losses}"))
    return Grid([tiles], side=SIDE)
