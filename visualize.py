"""Look inside a trained network.

    python visualize.py --type filter --ckpt_path checkpoints/bn --layer_idx 0
    python visualize.py --type feature --ckpt_path checkpoints/bn --layer_idx 1 --image_idx 50
    python visualize.py --type tsne --ckpt_path checkpoints/bn
    python visualize.py --type stn --ckpt_path checkpoints/stn

Sources: activation maximisation (Erhan et al. 2009), its regularisation (Yosinski et al. 2015),
t-SNE (van der Maaten and Hinton 2008), spatial transformers (Jaderberg et al. 2015).
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from console import LabError, UsageError, add_epoch_flag, lab_parser, progress, run, say

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn
    from torch.utils.data import DataLoader

    from engine import Runtime

TSNE_IMAGES = 1500  # embedded at the most, the same number of each class where there are enough
STN_IMAGES = 16
COLUMNS = 16  # pictures in a row
SCALES = (12, 16, 24, 32)  # pixels; images that excite filters are found coarse to fine


@dataclass(frozen=True)
class Subject:
    """What a picture is made of: a trained network, its checkpoint, and the flags."""

    model: "nn.Module"
    state: dict[str, Any]
    runtime: "Runtime"
    args: Namespace

    def test_loader(self) -> "DataLoader":
        """Read the test split; a picture that shows no photograph needs none."""
        from datasets import get_test_loader

        return get_test_loader(self.state, self.args.data_root, 256, self.runtime.device)


def make_parser() -> ArgumentParser:
    """Return the parser of visualize.py's flags."""
    parser = lab_parser(__doc__, data_root=None)
    add_epoch_flag(parser)
    parser.add_argument("--type", choices=PICTURES, default="filter", help="(default %(default)s)")
    parser.add_argument(
        "--layer_idx", type=int, default=0, help="convolution block, 0 to 4 (default 0)"
    )
    parser.add_argument(
        "--image_idx", type=int, default=0, help="image of the test split (default 0)"
    )
    parser.add_argument(
        "--save_dir", type=Path, default=Path("visualized"), help="(default %(default)s)"
    )
    return parser


def main() -> None:
    args = make_parser().parse_args()

    import torch

    import checkpoint
    import engine
    from networks import load_network

    state = checkpoint.load(checkpoint.find(args.ckpt_path, args.epoch))
    model = load_network(state)
    check_index("--layer_idx", args.layer_idx, len(conv_blocks(model)), "convolution blocks")
    if args.type == "stn" and not state["configs"]["use_stn"]:
        raise LabError(
            f"{args.ckpt_path} was trained without a spatial transformer; train one with: "
            "python train.py --bn --stn --ckpt_path checkpoints/stn"
        )
    runtime = engine.start(args.device, "fp32")
    model = model.to(runtime.device, memory_format=torch.channels_last)
    PICTURES[args.type](Subject(model.eval().requires_grad_(False), state, runtime, args))


def check_index(flag: str, index: int, count: int, what: str) -> None:
    """Raise a UsageError that names the valid range unless 0 <= index < count."""
    if not 0 <= index < count:
        raise UsageError(f"{flag} {index} is out of range: the {what} are 0 to {count - 1}")


def conv_blocks(model: "nn.Module") -> list[int]:
    """Return the places of the ConvBlocks in `model.conv_net`."""
    from networks import ConvBlock

    return [place for place, layer in enumerate(model.conv_net) if isinstance(layer, ConvBlock)]


def to_pixels(images: "Tensor") -> "np.ndarray":
    """Turn images (N, 3, H, W) in [-1, 1] into arrays (N, H, W, 3) in [0, 1]."""
    return (images.detach().cpu().permute(0, 2, 3, 1).float().numpy() / 2 + 0.5).clip(0, 1)


# ---------------------------------------------------------------- filter


def filter_responses(model: "nn.Module", images: "Tensor", layer_idx: int) -> "Tensor":
    """Return each filter's mean response, (N, filters), to images (N, 3, H, W).

    A tenth of what the activation would cut off counts too: a silent filter has a slope to climb.
    """
    from torch.nn.functional import leaky_relu

    place = conv_blocks(model)[layer_idx]
    block = model.conv_net[place]
    before_activation = block.bn(block.conv(model.conv_net[:place](images)))
    return leaky_relu(before_activation, 0.1).mean((2, 3))


def excite_filters(
    model: "nn.Module", layer_idx: int, steps: int = 48, rate: float = 0.1, seed: int = 0
) -> "Tensor":
    """Find, for each filter of a layer, the image that excites it most.

    Gradient ascent on the filter's mean response from faint noise, each step of fixed length, all
    filters at once as one batch: image i climbs on filter i alone. In deeper layers it climbs at
    each of `SCALES` in turn, so that large shapes come first. The image is jittered by up to two
    pixels a step and drawn towards grey, and the gradient smoothed, so that no single pixel counts.

    Args:
        model: network in evaluation mode.
        layer_idx: convolution block, 0 to 4.
        steps: of the ascent, over all scales.
        rate: root mean square change of a pixel a step; the range is [-1, 1].
        seed: of the noise and the jitter.

    Returns:
        Images (filters, 3, 32, 32) in [-1, 1], on the network's device.
    """
    import torch
    import torch.nn.functional as F

    device = next(model.parameters()).device
    filters = model.conv_net[conv_blocks(model)[layer_idx]].conv.out_channels
    generator = torch.Generator().manual_seed(seed)
    # The first two layers see a few pixels alone: enlarging would only stretch their stripes.
    scales = SCALES if layer_idx > 1 else SCALES[-1:]
    noise = torch.randn(1, 3, scales[0], scales[0], generator=generator) * 0.1
    images = noise.to(device).repeat(filters, 1, 1, 1)
    for step in progress(range(steps), label=f"exciting {filters} filters"):
        scale = scales[step * len(scales) // steps]
        if images.shape[-1] != scale:
            images = F.interpolate(images, size=(scale, scale), mode="bilinear")
        shift = torch.randint(-2, 3, (2,), generator=generator).tolist()
        moved = images.roll(shift, (2, 3)).requires_grad_()
        with torch.enable_grad():
            # The diagonal's gradient leaves every image to its own filter.
            score = filter_responses(model, moved, layer_idx).diagonal().sum()
            (gradient,) = torch.autograd.grad(score, moved)
        gradient = gradient.roll([-pixels for pixels in shift], (2, 3))
        gradient = F.avg_pool2d(gradient, 3, 1, 1, count_include_pad=False)
        length = gradient.square().mean((1, 2, 3), keepdim=True).sqrt()
        images = (images * 0.98 + rate * gradient / (length + 1e-12)).clamp(-1, 1)
    return images


def draw_filters(subject: Subject) -> None:
    """Save a layer's kernels and, beside them, the images that excite its filters most."""
    import matplotlib.pyplot as plt

    from pictures import publish

    layer_idx = subject.args.layer_idx
    conv = subject.model.conv_net[conv_blocks(subject.model)[layer_idx]].conv
    kernels = conv.weight.detach().cpu()  # (filters, channels, k, k)
    excited = to_pixels(excite_filters(subject.model, layer_idx))
    if conv.in_channels == 3:
        extent = kernels.abs().amax((1, 2, 3), keepdim=True)
        tiles, options = to_pixels(kernels / extent), {}
        what = "Kernels (RGB; grey is 0, each scaled to its largest weight)"
    else:
        tiles = kernels.mean(1).numpy()
        extent = abs(tiles).max()
        options = {"cmap": "RdBu_r", "vmin": -extent, "vmax": extent}
        what = f"Kernels (mean over {conv.in_channels} input channels; red is above 0, blue below)"
    rows = -(-len(tiles) // COLUMNS)
    figure = plt.figure(figsize=(12, 1.74 * rows + 1.2), layout="constrained")
    figure.suptitle(f"Layer {layer_idx}: {len(tiles)} filters of {conv.kernel_size[0]}x"
                    f"{conv.kernel_size[1]}", fontsize=15)  # fmt: skip
    upper, lower = figure.subfigures(2, 1)
    draw_tiles(upper, tiles, what, **options)
    draw_tiles(lower, excited, "The 32x32 image that excites each filter most")
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


# ---------------------------------------------------------------- feature


def feature_maps(model: "nn.Module", images: "Tensor", layer_idx: int) -> "Tensor":
    """Return what convolution block `layer_idx` puts out for images: (N, filters, H', W')."""
    place = conv_blocks(model)[layer_idx]
    return model.conv_net[: place + 1](model.stn(images))


def draw_features(subject: Subject) -> None:
    """Save a photograph, what the network takes it for, and all feature maps of a layer."""
    import matplotlib.pyplot as plt
    import numpy as np

    from pictures import publish

    dataset, layer_idx = subject.test_loader().dataset, subject.args.layer_idx
    index = subject.args.image_idx
    check_index("--image_idx", index, len(dataset), "test images")
    image, label = dataset[index]
    images = image[None].to(subject.runtime.device)
    probabilities = subject.model(images).softmax(1)[0]
    best = int(probabilities.argmax())
    maps = feature_maps(subject.model, images, layer_idx)[0].cpu().numpy()
    shown_images = {
        f"Test image {index}: {dataset.classes[label]}\n"
        f"read as {dataset.classes[best]}, {probabilities[best]:.1%}": images
    }
    if subject.state["configs"]["use_stn"]:
        shown_images["what the spatial transformer\nhands to layer 0"] = subject.model.stn(images)
    rows = -(-len(maps) // COLUMNS)
    figure = plt.figure(figsize=(12, 0.8 * rows + 3), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.4, 0.8 * rows + 0.6))
    axes = upper.subplots(1, len(shown_images), squeeze=False)[0]
    for axis, (title, batch) in zip(axes, shown_images.items(), strict=True):
        axis.imshow(to_pixels(batch)[0], interpolation="nearest")
        axis.axis("off")
        axis.set_title(title)
    _, height, width = maps.shape
    title = f"Layer {layer_idx}: {len(maps)} feature maps of {height}x{width}"
    # A few peaks would leave all else dark: the brightest 1 % share the last colour.
    options = {"cmap": "viridis", "vmin": 0, "vmax": max(np.quantile(maps, 0.99), 1e-6)}
    shown = draw_tiles(lower, maps, title, **options)
    lower.colorbar(shown, ax=lower.axes, label="activation", shrink=0.8, pad=0.01, extend="max")
    folder = subject.args.save_dir / "feature" / f"layer_{layer_idx}"
    publish(figure, folder / "feature_map.jpg")


# ---------------------------------------------------------------- tsne


def hidden_features(
    model: "nn.Module", loader: "DataLoader", runtime: "Runtime"
) -> tuple["Tensor", "Tensor"]:
    """Return what the last linear layer gets, (N, 256), and labels, (N,), of a whole split."""
    import torch

    from engine import to_device

    features, labels = [], []
    with torch.inference_mode():
        for images, batch_labels in loader:
            images, _ = to_device(images, batch_labels, runtime)
            flat = model.conv_net(model.stn(images)).flatten(1)
            features.append(model.fc_net[:-1](flat).cpu())
            labels.append(batch_labels.cpu())
    return torch.cat(features), torch.cat(labels)


def spread_over_classes(labels: "np.ndarray", most: int) -> "np.ndarray":
    """Return indices of at most `most` images, as evenly over the classes as there are images."""
    import numpy as np

    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], labels[order])  # where the class of each begins
    turn = np.empty(len(labels), int)  # the how-manieth of its class an image is
    turn[order] = np.arange(len(labels)) - first
    # Every step through a class takes images from all over it: neighbours are one sign's frames.
    counts = np.bincount(labels)[labels]
    scattered = (turn * 7919 + counts // 2) % counts
    return np.sort(np.argsort(scattered, kind="stable")[:most])


def draw_tsne(subject: Subject) -> None:
    """Save a t-SNE map of the last hidden layer's features, a colour and a marker a class."""
    import matplotlib.pyplot as plt
    import numpy as np
    from sklearn.manifold import TSNE

    from pictures import publish

    loader = subject.test_loader()
    features, labels = hidden_features(subject.model, loader, subject.runtime)
    features, labels = features.numpy(), labels.numpy()
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


# ---------------------------------------------------------------- stn


def sampling_frames(theta: "Tensor", size: int) -> "np.ndarray":
    """Return where on its input the STN samples the border of its output.

    Args:
        theta: (N, 2, 3), equation 1 of the paper.
        size: height and width of the image in pixels.

    Returns:
        Corners (N, 5, 2), the first repeated, as x, y in pixels: pixel (0, 0) spans -0.5 to 0.5.
    """
    import torch

    corners = torch.tensor([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1], [-1, -1, 1]])
    sampled = corners @ theta.detach().float().cpu().transpose(1, 2)  # (N, 5, 2) in [-1, 1]
    return ((sampled + 1) * size / 2 - 0.5).numpy()


def draw_stn(subject: Subject) -> None:
    """Save test images with the STN's sampling frame, and what the STN makes of them."""
    import matplotlib.pyplot as plt
    import numpy as np
    import torch

    from engine import to_device
    from networks import warp
    from pictures import publish

    dataset = subject.test_loader().dataset
    most = max(STN_IMAGES, len(dataset.classes))
    chosen = spread_over_classes(dataset.labels.cpu().numpy(), most)  # in the order of classes
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(STN_IMAGES, len(chosen))).astype(int)]
    images, labels = to_device(*dataset.__getitems__(chosen.tolist()), subject.runtime)
    with torch.inference_mode():
        theta = subject.model.stn.localize(images)
        straightened = to_pixels(warp(images, theta))
    size = images.shape[-1]
    frames, originals = sampling_frames(theta, size), to_pixels(images)
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
    for index, label in enumerate(labels.tolist()):
        upper, lower = axes[index // per_row * 2 :, index % per_row][:2]
        upper.axis("on")
        upper.set(facecolor="0.5", xticks=[], yticks=[])
        upper.imshow(originals[index], interpolation="nearest")
        upper.plot(*frames[index].T, color="magenta", linewidth=1.5)
        upper.plot(*frames[index, 0], "o", color="magenta", markersize=5)
        upper.set_title(dataset.classes[label], fontsize=8)
        upper.set_xlim(-margin, size - 1 + margin)
        upper.set_ylim(size - 1 + margin, -margin)
        lower.imshow(straightened[index], interpolation="nearest")
    publish(figure, subject.args.save_dir / "stn" / "stn.jpg")


PICTURES: dict[str, Callable[[Subject], None]] = {
    "filter": draw_filters,
    "feature": draw_features,
    "tsne": draw_tsne,
    "stn": draw_stn,
}

if __name__ == "__main__":
    run(main)
