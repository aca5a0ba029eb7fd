"""What visualize.py shows of a network for clips: a clip, which frames sway it, where it looks."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.console import LabError
from lab.features import inputs_of
from lab.files import reason
from lab.pictures import Film, Grid, Mark, Picture, Tile, shorten
from looking import cam
from looking.choice import check_index, examples, one_class
from looking.insight import heat_of, non_local_blocks, spatial_layers
from tasks import ViewFlags
from tasks.trained import Trained
from tasks.video.data import as_input, frames_and_stride, test_loader
from tasks.video.files import read_clip
from tasks.video.networks import SIDE, SingleFrame
from tasks.video.results import row_label, spread, strips

CLIPS = 10  # shown at the most
ENLARGED = 4  # times, in a film
COLUMNS = 5  # clips beside each other in a film
GAP = 8  # pixels between them

Shown = tuple[np.ndarray, int | None, str]  # (T, H, W, 3) uint8, label where known, name


def choose_clips(flags: ViewFlags, trained: Trained, most: int) -> list[Shown]:
    """Return the clip that `--image` or `--image_idx` names; else some of the test split."""
    if flags.image is not None:
        path = Path(flags.image)
        try:
            return [(read_clip(path, *frames_and_stride(trained)), None, path.name)]
        except OSError as error:
            raise LabError(f"{path}: {reason(error)}") from error
    dataset = test_loader(trained, flags.data_root, 1).dataset
    labels = dataset.labels.cpu().numpy()
    if flags.image_idx is not None:
        check_index("--image_idx", flags.image_idx, len(dataset), "clips")
        chosen = [flags.image_idx]
    else:
        chosen = examples(labels, lambda index: float(dataset.frames(index).mean()), most)
    return [(dataset.frames(k), int(labels[k]), dataset.split.names[k]) for k in chosen]


def inputs_of_clips(shown: list[Shown], trained: Trained) -> Tensor:
    """Return clips as network input, (N, 3, T, H, W)."""
    pixels = torch.from_numpy(np.stack([clip for clip, _, _ in shown]))
    return as_input(pixels).to(trained.runtime.device)


def row_labels(shown: list[Shown], logits: Tensor, classes: Sequence[str]) -> list[str]:
    """Say of clips what they are and what the network takes them for."""
    pairs = zip(shown, logits.argmax(1).tolist(), strict=True)
    return [
        row_label(
            shorten(name) if label is None else classes[label],
            "" if label == read else classes[read],
        )
        for (_, label, name), read in pairs
    ]


@torch.no_grad()
def view_clip(flags: ViewFlags, trained: Trained) -> Iterator[Picture | Film]:
    """Clips as strips of frames, and moving."""
    shown = choose_clips(flags, trained, CLIPS)
    logits = trained.network(inputs_of_clips(shown, trained))
    texts = row_labels(shown, logits, trained.classes)
    clips = [clip for clip, _, _ in shown]
    title = f"Clips of {len(clips[0])} frames, and what {trained.state['network']} takes them for"
    yield Picture("clip/clip.jpg", title, (strips(clips, texts),))
    yield Film("clip/clip.gif", film_of(clips))


def film_of(clips: list[np.ndarray]) -> np.ndarray:
    """Return clips, (T, H, W, 3) each, enlarged and beside each other, in order of rows."""
    large = np.stack(clips).repeat(ENLARGED, 2).repeat(ENLARGED, 3)  # (N, T, H, W, 3)
    count, frames, height, width, _ = large.shape
    columns = min(count, COLUMNS)
    rows = -(-count // columns)
    film = np.full((rows * columns, frames, height + GAP, width + GAP, 3), 255, np.uint8)
    film[:count, :, :height, :width] = large
    film = film.reshape(rows, columns, *film.shape[1:]).transpose(2, 0, 3, 1, 4, 5)
    return film.reshape(frames, rows * (height + GAP), -1, 3)[:, :-GAP, :-GAP]


def scored_labels(
    flags: ViewFlags, shown: list[Shown], logits: Tensor, classes: Sequence[str]
) -> Tensor:
    """Return the class of each clip whose score is looked into: `--target`, else its own."""
    target = one_class(flags.type, flags.target, classes)
    if target is not None:
        labels = [target] * len(shown)
    else:
        labels = [
            read if label is None else label
            for (_, label, _), read in zip(shown, logits.argmax(1).tolist(), strict=True)
        ]
    return torch.tensor(labels, device=logits.device)


def view_saliency(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Which pixels of which frames sway the score of a clip's class, a frame's share below it."""
    shown, classes = choose_clips(flags, trained, CLIPS // 2), trained.classes
    clips = inputs_of_clips(shown, trained).requires_grad_()
    with torch.enable_grad():
        logits = trained.network(clips)
        scores = logits.gather(1, scored_labels(flags, shown, logits, classes)[:, None])
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
    title += shown_share(len(places), maps.shape[1])
    yield Picture("saliency/saliency.jpg", title, (grid,))


def shown_share(shown: int, frames: int) -> str:
    """Say of shares below frames why they do not add up, where not all of them are drawn."""
    return f" ({shown} of {frames} are drawn)" if shown < frames else ""


def view_cam(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Where, and when, a layer sees what speaks for a clip's class: LayerCAM of each frame."""
    shown, classes = choose_clips(flags, trained, CLIPS // 2), trained.classes
    network, clips = trained.network.requires_grad_(False), inputs_of_clips(shown, trained)
    layers, (count, _, frames, *_) = spatial_layers(network), clips.shape
    with torch.no_grad():
        logits = network(clips)
    labels = scored_labels(flags, shown, logits, classes)

    def score() -> Tensor:
        return network(clips).gather(1, labels[:, None]).sum()

    name = cam.choose_layer(layers, flags.layer_idx, score)
    maps = over_time(cam.activation_maps(layers[name], score), network, count, frames)
    heat = cam.enlarged(maps, (frames, SIDE, SIDE))
    shares, places = (
        heat.sum((2, 3)) / heat.sum((1, 2, 3)).clamp(min=1e-12)[:, None],
        spread(frames),
    )
    tiles, rows = [], []
    for (clip, _, _), text, hot, share in zip(
        shown, row_labels(shown, logits, classes), heat, shares.tolist(), strict=True
    ):
        looks = cam.shown_over(clip / 255, hot)
        tiles.append([Tile(clip[t]) for t in places])
        tiles.append([Tile(looks[t], note=f"{share[t]:.0%}") for t in places])
        rows += [text, "LayerCAM"]
    grid = Grid(tiles, rows, [f"frame {t}" for t in places], side=1.0)
    title = (
        f"Where and when {name} sees what speaks for the class: the share of each frame below it"
    )
    yield Picture("cam/cam.jpg", title, (grid,))


def over_time(maps: Tensor, network: nn.Module, count: int, frames: int) -> Tensor:
    """Return maps of a layer of a network for `count` clips, frame by frame: (N, T, h, w).

    Args:
        maps: (N * P, h, w) of single frames, or of all at once; (N * P, t, h, w) of P windows.
    """
    parts = maps.unflatten(0, (count, -1))
    if maps.dim() == 3:
        if isinstance(network, SingleFrame):
            alone = parts.new_zeros(count, frames, *parts.shape[2:])
            alone[:, frames // 2] = parts[:, 0]
            return alone
        return parts.expand(-1, frames, -1, -1)  # frames that are channels have no time left
    window, starts = getattr(network, "window", frames), getattr(network, "starts", [0])
    total, times = parts.new_zeros(count, frames, *parts.shape[3:]), parts.new_zeros(frames)
    for own, start in zip(parts.unbind(1), starts, strict=True):
        size = (window, *own.shape[2:])
        total[:, start : start + window] += F.interpolate(own[:, None], size, mode="trilinear")[
            :, 0
        ]
        times[start : start + window] += 1
    return total / times.view(-1, 1, 1)


@torch.no_grad()
def view_attention(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Where positions of the last, a middle and the first moment look in all others."""
    network = trained.network
    blocks = list(non_local_blocks(network).values())
    if not blocks:
        raise LabError(
            f"{flags.ckpt_path} has no non-local block; train a network with one: "
            "python train.py --task video --network non_local --ckpt_path checkpoints/non_local"
        )
    (block,), shown = blocks, choose_clips(flags, trained, 1)
    clips = inputs_of_clips(shown, trained)
    features = inputs_of(network, block, clips)  # (1, C, T', H', W')
    moments, height, width = features.shape[2:]
    if flags.position:
        positions = [flags.position]
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
    (text,) = row_labels(shown, network(clips), trained.classes)
    title = "Where positions of the non-local block look, and how much of that goes to a frame"
    title += f"{shown_share(len(places), moments)}\n"
    grid = Grid(tiles, labels, columns, side=1.0)
    yield Picture("attention/attention.jpg", title + text.replace("\n", " "), (grid,))
