"""What visualize.py shows of a network for clips: a clip, which frames sway it, where it looks."""

from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.console import LabError
from lab.features import inputs_of
from lab.pictures import Film, Grid, Mark, Picture, Tile
from lab.runtime import Runtime
from looking.insight import non_local_blocks
from looking.subject import check_index, class_index, spread_over_classes
from looking.views import heat_of
from tasks.video import test_loader
from tasks.video.data import as_input
from tasks.video.files import read_clip
from tasks.video.found import row_label, spread, strips
from tasks.video.networks import SIDE, VideoNetwork

CLIPS = 10  # shown at the most
ENLARGED = 4  # times, in a film
COLUMNS = 5  # clips beside each other in a film
GAP = 8  # pixels between them

Shown = tuple[np.ndarray, int | None, str]  # (T, H, W, 3) uint8, label where known, name


def chosen_clips(
    args: Namespace, state: dict[str, Any], runtime: Runtime, most: int
) -> list[Shown]:
    """Return the clip that `--image` or `--image_idx` names; else some of the test split."""
    if args.image is not None:
        path = Path(args.image)
        frames, stride = state["configs"]["frames"], state["flags"]["stride"]
        try:
            return [(read_clip(path, frames, stride), None, path.name)]
        except OSError as error:
            raise LabError(f"{path}: {error.strerror or error}") from error
    dataset = test_loader(state, args.data_root, 1, runtime).dataset
    labels = dataset.labels.cpu().numpy()
    if args.image_idx is not None:
        check_index("--image_idx", args.image_idx, len(dataset), "clips")
        chosen = [args.image_idx]
    else:
        every = spread_over_classes(labels, max(most, len(dataset.classes)))
        every = every[np.argsort(labels[every], kind="stable")]
        chosen = every[np.linspace(0, len(every) - 1, min(most, len(every))).astype(int)].tolist()
    return [(dataset.frames(k), int(labels[k]), dataset.split.names[k]) for k in chosen]


def inputs_of_clips(shown: list[Shown], runtime: Runtime) -> Tensor:
    """Return clips as network input, (N, 3, T, H, W)."""
    return as_input(torch.from_numpy(np.stack([clip for clip, _, _ in shown]))).to(runtime.device)


def row_labels(shown: list[Shown], logits: Tensor, classes: list[str]) -> list[str]:
    """Say of clips what they are and what the network takes them for."""
    return [
        row_label(classes, label, read, name)
        for (_, label, name), read in zip(shown, logits.argmax(1).tolist(), strict=True)
    ]


# ---------------------------------------------------------------- clip


@torch.no_grad()
def view_clip(
    args: Namespace, state: dict[str, Any], model: VideoNetwork, runtime: Runtime
) -> Iterator[Picture | Film]:
    """Clips as strips of frames, and moving."""
    shown = chosen_clips(args, state, runtime, CLIPS)
    texts = row_labels(shown, model(inputs_of_clips(shown, runtime)), state["class_names"])
    clips = [clip for clip, _, _ in shown]
    title = f"Clips of {len(clips[0])} frames, and what {state['network']} takes them for"
    yield Picture("clip/clip.jpg", title, (strips(clips, texts),))
    yield Film("clip/clip.gif", film_of(clips))


def film_of(clips: list[np.ndarray]) -> np.ndarray:
    """Return clips, (T, H, W, 3) each, enlarged and beside each other, in order of rows."""
    large = np.stack(clips).repeat(ENLARGED, 2).repeat(ENLARGED, 3)  # (N, T, H, W, 3)
    count, frames, height, width, _ = large.shape
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    size = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    film = np.full((frames, *size, 3), 255, np.uint8)
    for index, clip in enumerate(large):
        top = index // columns * (height + GAP)
        left = index % columns * (width + GAP)
        film[:, top : top + height, left : left + width] = clip
    return film


# ---------------------------------------------------------------- saliency


def view_saliency(
    args: Namespace, state: dict[str, Any], model: VideoNetwork, runtime: Runtime
) -> Iterator[Picture]:
    """Which pixels of which frames sway the score of a clip's class, a frame's share below it."""
    shown = chosen_clips(args, state, runtime, CLIPS // 2)
    classes = state["class_names"]
    clips = inputs_of_clips(shown, runtime).requires_grad_()
    with torch.enable_grad():
        logits = model(clips)
        if args.target:
            labels = [class_index(args.target[0], classes)] * len(shown)
        else:
            labels = [
                read if label is None else label
                for (_, label, _), read in zip(shown, logits.argmax(1).tolist(), strict=True)
            ]
        scores = logits.gather(1, torch.tensor(labels, device=clips.device)[:, None])
        (gradients,) = torch.autograd.grad(scores.sum(), clips)
    maps = gradients.abs().amax(1)  # (N, T, H, W)
    shares = maps.sum((2, 3)) / maps.sum((1, 2, 3))[:, None]
    top = maps.flatten(1).quantile(0.99, 1)[:, None, None, None]
    heat = heat_of(maps / (top + 1e-12))
    places = spread(maps.shape[1])
    tiles, rows = [], []
    for (clip, _, _), text, hot, share in zip(
        shown, row_labels(shown, logits, classes), heat, shares.tolist(), strict=True
    ):
        tiles.append([Tile(clip[t]) for t in places])
        tiles.append(
            [Tile(0.3 * clip[t] / 255 + 0.7 * hot[t], note=f"{share[t]:.0%}") for t in places]
        )
        rows += [text, "saliency"]
    grid = Grid(tiles, rows, [f"frame {t}" for t in places], side=1.0)
    title = "Which frames sway the score of the class: the share of each below it"
    yield Picture("saliency/saliency.jpg", title, (grid,))


# ---------------------------------------------------------------- attention


@torch.no_grad()
def view_attention(
    args: Namespace, state: dict[str, Any], model: VideoNetwork, runtime: Runtime
) -> Iterator[Picture]:
    """Where positions of the last, a middle and the first moment look in all others."""
    blocks = list(non_local_blocks(model).items())
    if not blocks:
        raise LabError(
            f"{args.ckpt_path} has no non-local block; train a network with one: "
            "python train.py --task video --network non_local --ckpt_path checkpoints/non_local"
        )
    (shown,) = [chosen_clips(args, state, runtime, 1)]
    clips = inputs_of_clips(shown, runtime)
    ((name, block),) = blocks
    features = inputs_of(model, block, clips)  # (1, C, T', H', W')
    moments, height, width = features.shape[2:]
    if args.position:
        positions = [args.position]
    else:  # of each moment, where the block adds the most
        added = (block(features) - features).norm(dim=1)[0]
        positions = [
            [t, *divmod(int(added[t].argmax()), width)] for t in (moments - 1, moments // 2, 0)
        ]
    rows = block.attention(features, positions)[0]  # (P, T', H', W')
    over_time = rows.sum((2, 3))  # (P, T')
    maps = F.interpolate(rows, size=(SIDE, SIDE), mode="bilinear")
    heat = heat_of(maps / maps.amax((1, 2, 3), keepdim=True))
    clip = shown[0][0]
    kept = np.linspace(0, len(clip) - 1, moments).round().astype(int)
    places = spread(moments)
    tiles, labels = [], []
    for position, hot, share in zip(positions, heat, over_time.tolist(), strict=True):
        t, y, x = position
        point = np.array([[(x + 0.5) * SIDE / width - 0.5, (y + 0.5) * SIDE / height - 0.5]])
        looker = Tile(clip[kept[t]], marks=(Mark(point, "cyan"),))
        looks = [
            Tile(0.35 * clip[kept[m]] / 255 + 0.65 * hot[m], note=f"{share[m]:.0%}") for m in places
        ]
        tiles.append([looker, *looks])
        labels.append(f"from frame {kept[t]}")
    columns = ["the position", *(f"frame {kept[m]}" for m in places)]
    (text,) = row_labels(shown, model(clips), state["class_names"])
    title = "Where positions of the non-local block look, and how much of that goes to a frame\n"
    grid = Grid(tiles, labels, columns, side=1.0)
    yield Picture("attention/attention.jpg", title + text.replace("\n", " "), (grid,))


VIEWS: dict[str, Callable[..., Iterator[Picture | Film]]] = {
    "clip": view_clip,
    "saliency": view_saliency,
    "attention": view_attention,
}
