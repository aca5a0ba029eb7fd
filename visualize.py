"""Look inside a trained network.

    python visualize.py --type filter --ckpt_path checkpoints/bn --layer_idx 0
    python visualize.py --type feature --ckpt_path checkpoints/bn --layer_idx 1 --image_idx 50
    python visualize.py --type tsne --ckpt_path checkpoints/bn
    python visualize.py --type stn --ckpt_path checkpoints/stn
    python visualize.py --type saliency --ckpt_path checkpoints/bn
    python visualize.py --type fooling --model squeezenet1_1 --target gorilla --image photo.jpg
    python visualize.py --type class --target stop no_entry
    python visualize.py --type invert --model vgg19 --weights vgg19-dcbb9e9d.pth
    python visualize.py --type attention --ckpt_path checkpoints/non_local

The network is our own (`--ckpt_path`) or one of torchvision's with its ImageNet weights
(`--model`). The methods and their sources are in `insight.py`; t-SNE is that of van der Maaten and
Hinton (2008).
"""

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab.console import (
    LabError,
    UsageError,
    add_epoch_flag,
    lab_parser,
    natural,
    positive_float,
    positive_int,
    run,
    say,
)

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from looking.subject import Subject

STN_IMAGES = 16
TSNE_IMAGES = 1500  # embedded at the most, the same number of each class where there are enough
COLUMNS = 16  # pictures in a row
FILTERS = 128  # shown of a layer
EXAMPLES = (76, 251, 366, 604)  # of ImageNet: tarantula, dalmatian, gorilla, hourglass


def make_parser() -> ArgumentParser:
    """Return the parser of visualize.py's flags."""
    parser = lab_parser(__doc__, data_root=None)
    add_epoch_flag(parser)
    parser.add_argument("--type", choices=PICTURES, default="filter", help="(default %(default)s)")
    parser.add_argument(
        "--model", metavar="NAME", help="a network of torchvision's instead of --ckpt_path"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="its state dict, instead of a download"
    )
    parser.add_argument("--image", metavar="PATH", help="picture to look at: a file or an address")
    parser.add_argument("--image_idx", type=int, help="picture of the test split to look at")
    parser.add_argument(
        "--layer_idx", type=int, default=0, help="convolution layer, from 0 (default 0)"
    )
    parser.add_argument(
        "--target", nargs="+", metavar="CLASS", help="classes to aim at, by index or by name"
    )
    parser.add_argument(
        "--position", type=natural, nargs="+", metavar="K", help="y x of attention, t y x in clips"
    )
    parser.add_argument("--steps", type=positive_int, help="of gradient ascent or descent")
    parser.add_argument("--lr", type=positive_float, help="size of a step")
    parser.add_argument("--seed", type=natural, help="of noise and jitter (default 0)")
    parser.add_argument(
        "--save_dir", type=Path, default=Path("visualized"), help="(default %(default)s)"
    )
    return parser


def main() -> None:
    args = make_parser().parse_args()
    if args.model is None and args.weights is not None:
        raise UsageError("--weights belongs to --model NAME; a checkpoint of ours has its own")
    if args.model is not None and args.type in ("tsne", "stn", "attention"):
        raise UsageError(f"--type {args.type} looks into a network of our own: give --ckpt_path")

    from lab import engine
    from looking.subject import load_subject

    PICTURES[args.type](load_subject(args, engine.start(args.device, "fp32")))


# ---------------------------------------------------------------- filter, feature


def draw_filters(subject: "Subject") -> None:
    """Save a layer's kernels and, beside them, the images that excite its filters most."""
    import matplotlib.pyplot as plt

    from lab.images import to_arrays
    from lab.pictures import publish
    from looking.insight import SCALES, convolution_of, excite_filters

    (name, layer), layer_idx = subject.layer(), subject.args.layer_idx
    conv = convolution_of(layer)
    kernels = conv.weight.detach().cpu()[:FILTERS]  # (filters, channels, k, k)
    shown = len(kernels)
    side = min(64, min(subject.preprocess.size))
    # The first two layers see a few pixels alone: enlarging would only stretch their stripes.
    scales = [scale * side // SCALES[-1] for scale in SCALES] if layer_idx > 1 else [side]
    body = subject.body
    layer = body.get_submodule(name)
    excited = excite_filters(body, layer, subject.preprocess, shown, scales, **subject.given)
    if kernels.shape[1] == 3:
        extent = kernels.abs().amax((1, 2, 3), keepdim=True)
        tiles, options = to_arrays(kernels / extent / 2 + 0.5), {}
        what = "Kernels (RGB; grey is 0, each scaled to its largest weight)"
    else:
        tiles = kernels.mean(1).numpy()
        extent = abs(tiles).max()
        options = {"cmap": "RdBu_r", "vmin": -extent, "vmax": extent}
        channels = kernels.shape[1]
        mean = f"mean over {channels} input channels; " if channels > 1 else ""
        what = f"Kernels ({mean}red is above 0, blue below)"
    rows = -(-shown // COLUMNS)
    figure = plt.figure(figsize=(12, 1.74 * rows + 1.2), layout="constrained")
    count = f"{shown} of {conv.out_channels}" if shown < conv.out_channels else f"{shown}"
    height, width = conv.kernel_size
    figure.suptitle(f"Layer {layer_idx} ({name}): {count} filters of {height}x{width}", fontsize=15)
    upper, lower = figure.subfigures(2, 1)
    draw_tiles(upper, tiles, what, **options)
    title = f"The {side}x{side} image that excites each filter most"
    draw_tiles(lower, subject.pixels(excited), title)
    publish(figure, subject.args.save_dir / "filter" / f"filter_layer_{layer_idx}.jpg")


def draw_tiles(figure: Any, tiles: "np.ndarray", title: str, **options: Any) -> Any:
    """Draw numbered tiles, (N, H, W) or (N, H, W, 3), in rows of `COLUMNS`; return the last."""
    rows = -(-len(tiles) // COLUMNS)
    figure.suptitle(title, fontsize=12)
    axis = figure.subplots()  # one for all: an axis a tile takes seconds to lay out
    axis.axis("off")
    for index, tile in enumerate(tiles):
        row, column = divmod(index, COLUMNS)
        y, extent = 1.15 * row, (column, column + 0.9, 1.15 * row + 0.9, 1.15 * row)
        shown = axis.imshow(tile, interpolation="nearest", extent=extent, **options)
        axis.text(column + 0.45, y - 0.03, str(index), ha="center", va="bottom", fontsize=8)
    axis.set_xlim(0, COLUMNS)
    axis.set_ylim(1.15 * rows - 0.2, -0.2)
    return shown


def draw_features(subject: "Subject") -> None:
    """Save a photograph, what the network takes it for, and all feature maps of a layer."""
    import matplotlib.pyplot as plt
    import numpy as np

    from lab.pictures import publish
    from looking.insight import outputs_of

    (name, layer), layer_idx = subject.layer(), subject.args.layer_idx
    images, (label,) = subject.photographs(1)
    (prediction,), (confidence,) = subject.predictions(images)
    maps = outputs_of(subject.model, layer, images)[0].cpu().numpy()
    read_as = f"read as {subject.classes[prediction]}, {confidence:.1%}"
    shown_images = {f"{subject.caption(label)}\n{read_as}": images}
    if subject.has_stn:
        shown_images["what the spatial transformer\nhands to layer 0"] = subject.model.stn(images)
    rows = -(-len(maps) // COLUMNS)
    figure = plt.figure(figsize=(12, 0.8 * rows + 3), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.4, 0.8 * rows + 0.6))
    axes = upper.subplots(1, len(shown_images), squeeze=False)[0]
    for axis, (title, batch) in zip(axes, shown_images.items(), strict=True):
        axis.imshow(subject.pixels(batch)[0], interpolation="nearest")
        axis.axis("off")
        axis.set_title(title)
    _, height, width = maps.shape
    title = f"Layer {layer_idx} ({name}): {len(maps)} feature maps of {height}x{width}"
    # A few peaks would leave all else dark: the brightest 1 % share the last colour.
    options = {"cmap": "viridis", "vmin": 0, "vmax": max(np.quantile(maps, 0.99), 1e-6)}
    shown = draw_tiles(lower, maps, title, **options)
    lower.colorbar(shown, ax=lower.axes, label="activation", shrink=0.8, pad=0.01, extend="max")
    folder = subject.args.save_dir / "feature" / f"layer_{layer_idx}"
    publish(figure, folder / "feature_map.jpg")


# ---------------------------------------------------------------- tsne, stn


def draw_tsne(subject: "Subject") -> None:
    """Save a t-SNE map of the last hidden layer's features, a colour and a marker a class."""
    import matplotlib.pyplot as plt
    import numpy as np
    import torch
    from sklearn.manifold import TSNE

    from lab.engine import to_device
    from lab.pictures import publish
    from looking.insight import hidden_features
    from looking.subject import spread_over_classes

    loader = subject.test_loader()
    features, labels = [], []
    with torch.inference_mode():
        for images, batch_labels in loader:
            images, batch_labels = to_device(images, batch_labels, subject.runtime)
            features.append(hidden_features(subject.model, images).cpu())
            labels.append(batch_labels.cpu())
    features, labels = torch.cat(features).numpy(), torch.cat(labels).numpy()
    chosen = spread_over_classes(labels, TSNE_IMAGES)
    if len(chosen) < 3:
        raise LabError(f"t-SNE needs 3 test images or more; there are {len(chosen)}")
    share = f"{len(chosen):,} of {len(labels):,} test images, spread over the classes"
    say(f"Embedding {share} ...")
    labels = labels[chosen]
    perplexity = min(30, (len(chosen) - 1) / 3)
    points = TSNE(init="pca", random_state=0, perplexity=perplexity).fit_transform(features[chosen])

    figure, axis = plt.subplots(figsize=(12, 8), layout="constrained")
    colours, markers = plt.colormaps["tab10"].colors, "os^D"
    for label, name in enumerate(loader.dataset.classes):
        if not name[0].isdigit():
            name = f"{label}_{name}"
        own = points[labels == label]
        axis.scatter(
            *own.T, s=22, color=colours[label % 10], marker=markers[label // 10 % len(markers)],
            edgecolors="black", linewidths=0.3, label=name,
        )  # fmt: skip
        if len(own):
            axis.annotate(
                name.split("_")[0], np.median(own, 0), ha="center", va="center", fontsize=9,
                weight="bold", bbox={"boxstyle": "round,pad=0.15", "alpha": 0.8, "fc": "white"},
            )  # fmt: skip
    axis.set_title(f"t-SNE of the {features.shape[1]} features before the last layer\n{share}")
    axis.set_xlabel("t-SNE dimension 1 (no unit: who is near whom matters, not how far)")
    axis.set_ylabel("t-SNE dimension 2")
    axis.set_xticks([])
    axis.set_yticks([])
    figure.legend(loc="outside right upper", fontsize=9)
    publish(figure, subject.args.save_dir / "tsne" / "tsne.jpg")


def draw_stn(subject: "Subject") -> None:
    """Save test images with the STN's sampling frame, and what the STN makes of them."""
    import matplotlib.pyplot as plt
    import torch

    from lab.pictures import publish
    from looking.insight import sampling_frames
    from networks import warp

    if not subject.has_stn:
        raise LabError(
            f"{subject.args.ckpt_path} was trained without a spatial transformer; train one with: "
            "python train.py --bn --stn --ckpt_path checkpoints/stn"
        )
    images, labels = subject.photographs(STN_IMAGES)
    with torch.inference_mode():
        theta = subject.model.stn.localize(images)
        straightened = subject.pixels(warp(images, theta))
    size = images.shape[-1]
    frames, originals = sampling_frames(theta, size), subject.pixels(images)
    per_row = 8
    rows = -(-len(images) // per_row)
    figure, axes = plt.subplots(
        2 * rows, per_row, figsize=(12, 3.3 * rows + 0.6), layout="constrained", squeeze=False
    )
    figure.suptitle(
        "Spatial transformer: the frame it samples (above), what the classifier gets (below); "
        "the dot is the upper left corner"
    )
    for axis in axes.flat:
        axis.axis("off")
    # Frames may reach beyond the image, where the sampled value is 0, mid-grey.
    beyond = max(-0.5 - frames.min(), frames.max() - size + 0.5)
    margin = 0.5 + min(max(beyond, 0.5), size / 2)
    for index, label in enumerate(labels):
        upper, lower = axes[index // per_row * 2 :, index % per_row][:2]
        upper.axis("on")
        upper.set(facecolor="0.5", xticks=[], yticks=[])
        upper.imshow(originals[index], interpolation="nearest")
        upper.plot(*frames[index].T, color="magenta", linewidth=1.5)
        upper.plot(*frames[index, 0], "o", color="magenta", markersize=5)
        upper.set_title(subject.caption(label), fontsize=8)
        upper.set_xlim(-margin, size - 1 + margin)
        upper.set_ylim(size - 1 + margin, -margin)
        lower.imshow(straightened[index], interpolation="nearest")
    publish(figure, subject.args.save_dir / "stn" / "stn.jpg")


# ---------------------------------------------------------------- saliency, fooling


def draw_saliency(subject: "Subject") -> None:
    """Save photographs, their saliency maps, both in one, and the object that the maps mark."""
    import matplotlib.pyplot as plt
    import torch

    from lab.pictures import draw_grid, publish
    from looking.insight import object_masks, saliency_maps

    images, labels = subject.photographs(8)
    predictions, _ = subject.predictions(images)
    target = subject.target()
    if target is not None:
        labels = [target] * len(images)
    labels = [p if label is None else label for label, p in zip(labels, predictions, strict=True)]
    maps = saliency_maps(subject.model, images, torch.tensor(labels, device=images.device))
    pixels, masks = subject.pixels(images), object_masks(maps).cpu().numpy()
    # The highest pixels would leave all else black: the top 1 % share the last colour.
    top = maps.flatten(1).quantile(0.99, 1)[:, None, None]
    heat = plt.colormaps["hot"]((maps / (top + 1e-12)).clamp(max=1).cpu().numpy())[..., :3]
    grid = [
        list(pixels),
        list(heat),
        list(0.4 * pixels + 0.6 * heat),
        [
            p * mask[..., None] + (1 - mask[..., None])
            for p, mask in zip(pixels, masks, strict=True)
        ],
    ]
    captions = [
        f"score of {subject.name(label)}\nread as {subject.name(prediction)}"
        for label, prediction in zip(labels, predictions, strict=True)
    ]
    rows = ["photograph", "saliency", "overlay", "most salient\nquarter"]
    if len(images) < 4:  # a row a photograph then, not a column
        grid, rows, captions = list(zip(*grid, strict=True)), captions, rows
    title = "Which pixels sway the score of a class most"
    figure = draw_grid(grid, rows, captions, title, side=2 if len(images) < 4 else 1.5)
    publish(figure, subject.args.save_dir / "saliency" / "saliency.jpg")


def draw_fooling(subject: "Subject") -> None:
    """Save an image, one that the network takes for something else, and their difference."""
    from lab.images import to_arrays
    from lab.pictures import draw_grid, publish
    from looking.insight import make_fooling_image

    image, (label,) = subject.photographs(1)
    (before,), (confidence_before,) = subject.predictions(image)
    target = subject.target()
    if target is None:
        target = (before + 1) % len(subject.classes)
    options = {name: value for name, value in subject.given.items() if name != "seed"}
    fooling = make_fooling_image(subject.model, image, target, subject.preprocess, **options)
    (after,), (confidence_after,) = subject.predictions(fooling.image)
    wanted = subject.classes[target]
    difference = fooling.difference
    l2, largest = difference.norm().item(), difference.abs().max().item()
    if fooling.steps == 0:
        verdict = f"already read as {wanted}: nothing to do"
    elif fooling.fooled:
        verdict = f"read as {wanted} after {fooling.steps} steps"
    else:
        verdict = f"not read as {wanted} within {fooling.steps} steps; try more --steps"
    size = f"L2 {l2:.2f}, L-infinity {largest:.3f} of pixels in [0, 1]"
    say(f"{subject.caption(label)}: {verdict}; {size}")
    tiles = [
        subject.pixels(image)[0],
        subject.pixels(fooling.image)[0],
        *(to_arrays(0.5 + scale * difference)[0] for scale in (1, 10)),
    ]
    captions = [
        f"original\n{subject.name(before)}, {confidence_before:.1%}",
        f"fooling image\n{subject.name(after)}, {confidence_after:.1%}",
        "difference\n(grey is 0)",
        "difference x 10\n(grey is 0)",
    ]
    figure = draw_grid([tiles], [""], captions, f"{verdict}\n{size}", side=2.6)
    publish(figure, subject.args.save_dir / "fooling" / "fooling.jpg")


# ---------------------------------------------------------------- class, invert


def draw_classes(subject: "Subject") -> None:
    """Save the image of each class that its score climbs to, and the course of the climb."""
    from lab.pictures import draw_contact_sheet, draw_grid, publish
    from looking.insight import visualize_classes

    targets = subject.targets()
    if not targets and subject.state is None:
        targets = [index for index in EXAMPLES if index < len(subject.classes)]
    targets = targets or list(range(len(subject.classes)))
    course = {}

    def watch(step: int, steps: int, images: "Tensor") -> None:
        # Six moments, closer together at the start, where most happens.
        moments = {max(1, round(steps * (k / 6) ** 2)) for k in range(1, 7)}
        if step in moments:
            course[step] = subject.pixels(images[:6])

    found = visualize_classes(
        subject.model, targets, subject.preprocess, watch=watch, **subject.given
    )
    confidences = subject.model(found).softmax(1)[range(len(targets)), targets].tolist()
    names = [subject.name(target) for target in targets]
    captions = [f"{n}\n{c:.0%} sure" for n, c in zip(names, confidences, strict=True)]
    title = "What each class looks like to the network"
    columns = -(-len(targets) // -(-len(targets) // 9))  # up to 9, the rows of even length
    figure = draw_contact_sheet(subject.pixels(found), captions, title, columns)
    folder = subject.args.save_dir / "class"
    publish(figure, folder / "class.jpg")
    rows = [list(row) for row in zip(*course.values(), strict=True)]
    columns = [f"step {step}" for step in course]
    figure = draw_grid(rows, names[:6], columns, "The course of the ascent")
    publish(figure, folder / "course.jpg")


def draw_inversions(subject: "Subject") -> None:
    """Save photographs beside what can be told of them from deeper and deeper layers."""
    from lab.pictures import draw_grid, publish
    from looking.insight import conv_layers, invert_features, psnr

    images, _ = subject.photographs(3)
    if subject.has_stn:
        images = subject.model.stn(images)  # what it leaves out, no layer behind it has seen
    body = subject.body
    layers = list(conv_layers(body).values())
    chosen = sorted({round(k * (len(layers) - 1) / 4) for k in range(5)})
    columns, notes = [subject.pixels(images)], [[""] * len(images)]
    originals = subject.preprocess.denormalize(images)
    for place in chosen:
        found = invert_features(body, layers[place], images, subject.preprocess, **subject.given)
        quality = psnr(subject.preprocess.denormalize(found), originals).tolist()
        columns.append(subject.pixels(found))
        notes.append([f"{decibels:.1f} dB" for decibels in quality])
    figure = draw_grid(
        [list(row) for row in zip(*columns, strict=True)],
        [""] * len(images),
        ["image", *(f"from layer {place}" for place in chosen)],
        "What a layer still knows of an image: inverted features (PSNR below)",
        side=2,
        notes=[list(row) for row in zip(*notes, strict=True)],
    )
    publish(figure, subject.args.save_dir / "invert" / "invert.jpg")


# ---------------------------------------------------------------- attention


def draw_attention(subject: "Subject") -> None:
    """Save where positions of a non-local block look; in clips, a column a frame."""
    import matplotlib.pyplot as plt
    import torch
    import torch.nn.functional as F

    from lab.pictures import draw_grid, publish
    from looking.insight import inputs_of, non_local_blocks
    from looking.subject import check_index

    blocks = list(non_local_blocks(subject.model).items())
    if not blocks:
        raise LabError(
            f"{subject.args.ckpt_path} has no non-local block; train a network with one: "
            "python train.py --bn --non_local --ckpt_path checkpoints/non_local"
        )
    check_index("--layer_idx", subject.args.layer_idx, len(blocks), "non-local blocks")
    name, block = blocks[subject.args.layer_idx]
    images, (label,) = subject.photographs(1)
    features = inputs_of(subject.model, block, images)
    *times, height, width = features.shape[2:]
    if subject.args.position:
        positions = [subject.args.position]
    else:
        middle = [length // 2 for length in times]
        places = [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3)]  # fourths of height and width
        positions = [[*middle, y * height // 4, x * width // 4] for y, x in places]
    rows = block.attention(features, positions)[0]  # (P, *key size)
    maps = rows if times else rows[:, None]  # (P, T, h, w)
    frames = images  # (T, C, H, W)
    if times:  # the network may have thinned them out
        kept = torch.linspace(0, images.shape[2] - 1, times[0]).round().long()
        frames = images[0].movedim(1, 0)[kept]
    pixels = subject.pixels(subject.model.stn(frames) if subject.has_stn else frames)
    maps = F.interpolate(maps, size=pixels.shape[1:3], mode="bilinear")
    heat = plt.colormaps["hot"]((maps / maps.amax((1, 2, 3), keepdim=True)).cpu().numpy())[..., :3]
    lookers = [pixels[position[0] if times else 0] for position in positions]
    looks = [list(0.35 * pixels + 0.65 * frame_heat) for frame_heat in heat]
    labels = [f"from {tuple(position)}" for position in positions]
    title = f"Where positions of {name} look: {subject.caption(label)}"
    if times:
        columns = ["the position", *(f"frame {t}" for t in range(len(pixels)))]
        grid = [[looker, *look] for looker, look in zip(lookers, looks, strict=True)]
        figure = draw_grid(grid, labels, columns, title, side=2)
    else:
        grid = [lookers, [look for (look,) in looks]]
        figure = draw_grid(grid, ["the position", "where it looks"], labels, title, side=2)
    scale = [full / side for full, side in zip(pixels.shape[1:3], (height, width), strict=True)]
    for position, axis in zip(
        positions, figure.axes[:: len(pixels) + 1 if times else 1], strict=False
    ):
        y, x = ((place + 0.5) * by - 0.5 for place, by in zip(position[-2:], scale, strict=True))
        axis.plot(x, y, "o", color="cyan", markersize=9, markeredgecolor="black")
    publish(figure, subject.args.save_dir / "attention" / "attention.jpg")


PICTURES: dict[str, Callable[["Subject"], None]] = {
    "filter": draw_filters,
    "feature": draw_features,
    "tsne": draw_tsne,
    "stn": draw_stn,
    "saliency": draw_saliency,
    "fooling": draw_fooling,
    "class": draw_classes,
    "invert": draw_inversions,
    "attention": draw_attention,
}

if __name__ == "__main__":
    run(main)
