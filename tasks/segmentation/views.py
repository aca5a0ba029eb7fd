"""What visualize.py shows of a network of pixels: its labels, and how they became so large."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lab.console import LabError
from lab.images import as_input
from lab.pictures import Colours, Grid, Legend, Mark, Picture, Tile, shorten
from looking import cam
from looking.choice import one_class
from looking.insight import saliency_of, spatial_layers
from networks import flat_index
from tasks import ViewFlags
from tasks.annotated import chosen_pictures
from tasks.blocks import fill, fold
from tasks.segmentation import FCNS
from tasks.segmentation.labels import IGNORED, colours_of
from tasks.segmentation.networks import FCN, enlarging
from tasks.segmentation.results import LONGEST, WRONG, label_picture, legend, mark_wrong, overlay
from tasks.segmentation.upsampling import overlaps
from tasks.trained import Trained

BOARDS = ((2, 2), (3, 2), (4, 2), (5, 3))  # kernel and stride of transposed convolutions
BOARD = 6  # inputs along an axis of those


def view_masks(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Picture, truth, what is found, and where they differ."""
    classes, rows, seen = trained.classes, [], []
    colours = colours_of(classes)
    for picture, labels, name in chosen_pictures(flags, trained, otherwise=LONGEST):
        predicted = label_picture(trained, picture)
        seen.append(predicted)
        shown = Tile(overlay(picture, predicted, colours))
        if labels is None:
            rows.append([Tile(picture, shorten(name)), shown])
            continue
        seen.append(labels)
        known = labels != IGNORED
        right = (labels == predicted)[known].mean() if known.any() else 0.0
        note = f"{right:.1%} of the pixels right"
        wrong = Tile(mark_wrong(picture, labels, predicted), note=note)
        truth = Tile(overlay(picture, labels, colours))
        rows.append([Tile(picture, note=shorten(name)), truth, shown, wrong])
    columns = ["picture", "truth", "found", "where they differ"] if len(rows[0]) > 2 else []
    meanings = legend(classes, *seen).colours
    if columns:
        meanings = {**meanings, "wrong": WRONG, "not labelled": (0, 0, 0)}
    parts = Grid(rows, columns=columns, side=2.2), Legend(meanings)
    yield Picture("masks/masks.jpg", "What every pixel shows", parts)


@torch.inference_mode()
def view_upsampling(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Four ways from a small map to a large one, their kernels, and the checkerboard."""
    network, device = trained.network, trained.runtime.device
    if not isinstance(network, FCN):
        raise LabError(f"{trained.state['network']} has no transposed convolution: train {FCNS[0]}")
    ((picture, _, name),) = chosen_pictures(flags, trained, 1, LONGEST)
    scores = network.scores[0](network.maps(fill(as_input(picture).to(device), network.stride))[0])
    learned = network.upsample[0]
    label = int(scores[0].flatten(1).std(1).argmax())  # the class that has most to say about it
    small = scores[:, label : label + 1]
    factor = learned.stride[0]
    initial = enlarging(1, factor).to(device)
    own = learned.weight[label : label + 1, label : label + 1]
    ways = {
        "nearest": F.interpolate(small, scale_factor=factor),
        "bilinear": F.interpolate(small, scale_factor=factor, mode="bilinear"),
        "transposed convolution,\nas initialised": initial(small),
        "transposed convolution,\nas learned": F.conv_transpose2d(
            small, own, stride=factor, padding=learned.padding
        ),
    }
    low, high = float(small.min()), float(small.max())
    maps = [Tile(as_map(small), f"scores, {small.shape[3]}x{small.shape[2]}")]
    maps += [Tile(as_map(enlarged), way) for way, enlarged in ways.items()]
    box = torch.zeros_like(own)
    inside = slice(factor // 2, factor // 2 + factor)
    box[:, :, inside, inside] = 1  # what a transposed convolution would have for a kernel
    triangle = initial.weight
    change = float((own - triangle).abs().max() / triangle.max())
    kernels = [
        Tile(as_map(box), "nearest"),
        Tile(as_map(triangle), "as initialised"),
        Tile(as_map(own), "as learned", f"differs by up to {change:.1%}"),
    ]
    most = float(max(kernel.max() for kernel in (box, triangle, own)))
    boards = [
        Tile(overlaps(BOARD, kernel, stride).numpy(), f"kernel {kernel}, stride {stride}")
        for kernel, stride in BOARDS
    ]
    title = f"{shorten(name)}: scores of {trained.classes[label]}, {factor} times as large"
    parts = (
        Grid([maps], side=1.9, colours=Colours("viridis", low, high, "score")),
        Grid([kernels], title="The kernels: what becomes of a single score", side=1.7,
             colours=Colours("viridis", min(0.0, float(own.min())), most, "weight")),
        Grid([boards], title="Inputs that an output is made from: even where the stride divides "
             "the kernel, else a checkerboard", side=1.7,
             colours=Colours("viridis", 0, float(max(b.image.max() for b in boards)), "inputs")),
    )  # fmt: skip
    yield Picture("upsampling/upsampling.jpg", title, parts)


def view_cam(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Where a layer sees what speaks for the pixels of one class, or for the one at `--position`.

    The class is that of `--target`, else the one that most of the pixels are given.
    """
    classes, network, rows = trained.classes, fold(trained.network).requires_grad_(False), []
    wanted = one_class(flags.type, flags.target, classes)
    layers = spatial_layers(network)
    for picture, _, name in chosen_pictures(flags, trained, otherwise=LONGEST):
        images = as_input(picture).to(trained.runtime.device)
        predicted = network.segment(images)[0].argmax(0)  # (H, W)
        label = int(predicted.flatten().mode().values) if wanted is None else wanted
        there, marks = predicted == label, ()
        if flags.position:
            index = int(flat_index([flags.position], predicted.shape))
            label = int(predicted.flatten()[index]) if wanted is None else wanted
            there = (torch.arange(predicted.numel(), device=there.device) == index).view_as(there)
            marks = (Mark(np.array([flags.position[::-1]]), "cyan"),)
        if not there.any():
            rows.append([Tile(picture, shorten(name), f"no pixel of {classes[label]}")])
            continue

        def score_of(images: Tensor, label: int = label, there: Tensor = there) -> Tensor:
            return network.segment(images)[0, label][there].sum()

        score = partial(score_of, images)
        layer = cam.choose_layer(layers, flags.layer_idx, score)
        maps = [cam.activation_maps(layers[layer], score, method)
                for method in (cam.layer_cam, cam.grad_cam)]  # fmt: skip
        maps.append(saliency_of(score_of, images))
        kinds = (f"LayerCAM, {layer}", f"Grad-CAM, {layer}", "saliency")
        tiles = [Tile(picture, shorten(name), f"{there.sum():,} pixels of {classes[label]}", marks)]
        (height, width), filled = picture.shape[:2], fill(images, network.stride).shape[2:]
        for kind, own in zip(kinds, maps, strict=True):
            size = images.shape[2:] if kind == "saliency" else filled
            heat = cam.enlarged(own, size)[0, :height, :width]
            tiles.append(Tile(cam.shown_over(picture / 255, heat), kind))
        rows.append(tiles)
    title = "Where a layer sees what speaks for pixels of a class"
    yield Picture("cam/cam.jpg", title, (Grid(rows, side=2.2),))


def as_map(values: Tensor) -> np.ndarray:
    """Return the values of a single map, (1, 1, H, W), for drawing."""
    return values[0, 0].float().cpu().numpy()
