"""What visualize.py shows of a classifier: `view_NAME` yields the pictures of `--type NAME`.

The methods and their sources are in `looking.insight`; t-SNE is by van der Maaten and Hinton
(2008).
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.manifold import TSNE
from torch import Tensor, nn

from lab.console import LabError, counted, say
from lab.features import inputs_of, outputs_of
from lab.images import to_arrays
from lab.pictures import Colours, Grid, Mark, Picture, Scatter, Tile, sheet, shorten
from lab.runtime import to_device
from looking import cam, insight
from looking.choice import check_index, spread_over_classes
from looking.insight import heat_of
from networks import warp
from tasks import ViewFlags
from tasks.classification import TASK
from tasks.classification.subject import Subject, load_subject
from tasks.trained import Trained

STN_IMAGES = 16
TSNE_IMAGES = 1500  # embedded at the most, the same number of each class where there are enough
FILTERS = 128  # shown of a layer
SMALL = {"columns": 16, "side": 0.65}  # of a sheet of filters or feature maps
EXAMPLES = (76, 251, 366, 604)  # of ImageNet: tarantula, dalmatian, gorilla, hourglass

# ---------------------------------------------------------------- filter, feature


def view_filter(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """A layer's kernels and, below them, the images that excite its filters most."""
    subject = load_subject(flags, trained)
    (name, layer), layer_idx = subject.layer(), subject.layer_idx
    conv = insight.convolution_of(layer)
    kernels = conv.weight.detach().cpu()[:FILTERS]  # (filters, channels, k, k)
    filters, channels, height, width = kernels.shape
    numbers = list(map(str, range(filters)))
    if channels == 3:
        extent = kernels.abs().amax((1, 2, 3), keepdim=True)
        images, colours = to_arrays(kernels / extent / 2 + 0.5), None
        title = "Kernels (RGB; grey is 0, each scaled to its largest weight)"
    else:
        images = kernels.mean(1).numpy()
        extent = float(abs(images).max())
        colours = Colours("RdBu_r", -extent, extent, "weight")
        title = f"Kernels, the mean over {channels} input channels" if channels > 1 else "Kernels"
    body, preprocess = subject.body, subject.preprocess
    layer = body.get_submodule(name)
    sides = insight.excitable_sides(body, layer, preprocess)
    # The first two layers see a few pixels alone: enlarging would only stretch their stripes.
    sides = sides if layer_idx > 1 else sides[-1:]
    excited = insight.excite_filters(body, layer, preprocess, filters, sides, **subject.given)
    excites = f"The {sides[-1]}x{sides[-1]} image that excites each filter most"
    shown = f"{filters} of {conv.out_channels}" if filters < conv.out_channels else f"{filters}"
    parts = (
        sheet(images, numbers, title=title, colours=colours, **SMALL),
        sheet(subject.pixels(excited), numbers, title=excites, **SMALL),
    )
    title = f"Layer {layer_idx} ({name}): {shown} filters of {height}x{width}"
    yield Picture(f"filter/filter_layer_{layer_idx}.jpg", title, parts)


def view_feature(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """A photograph, what the network takes it for, and all feature maps of a layer."""
    subject = load_subject(flags, trained)
    (name, layer), layer_idx = subject.layer(), subject.layer_idx
    images, (label,) = subject.photographs(1, TASK.shown_unasked["feature"]["image_idx"])
    (reading,) = subject.readings(images)
    maps = outputs_of(subject.network, [layer], images)[0][0].cpu().numpy()  # (filters, H, W)
    tiles = [Tile(subject.pixels(images)[0], f"{subject.caption(label)}\nread as {reading}")]
    if subject.has_stn:
        handed = subject.pixels(subject.network.stn(images))[0]
        tiles.append(Tile(handed, "what the spatial transformer\nhands to layer 0"))
    count, height, width = maps.shape
    # A few peaks would leave all else dark: the brightest 1 % share the last colour.
    colours = Colours("viridis", 0, max(float(np.quantile(maps, 0.99)), 1e-6), "activation")
    parts = (
        Grid([tiles], side=2),
        sheet(maps, list(map(str, range(count))), colours=colours, **SMALL),
    )
    title = f"Layer {layer_idx} ({name}): {count} feature maps of {height}x{width}"
    yield Picture(f"feature/layer_{layer_idx}/feature_map.jpg", title, parts)


# ---------------------------------------------------------------- tsne, stn


def view_tsne(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """A t-SNE map of what the last layer gets, a colour and a marker a class."""
    subject = load_subject(flags, trained)
    loader = subject.test_loader()
    features, labels = [], []
    with torch.inference_mode():
        for images, batch_labels in loader:
            images = to_device(images, subject.runtime)
            features.append(insight.hidden_features(subject.network, images).cpu())
            labels.append(batch_labels.cpu())
    features, labels = torch.cat(features).numpy(), torch.cat(labels).numpy()
    chosen = spread_over_classes(labels, TSNE_IMAGES)
    share = f"{len(chosen):,} of {len(labels):,} test images, spread over the classes"
    features, labels = features[chosen], labels[chosen]
    if len(chosen) < 3:
        raise LabError(f"t-SNE needs 3 test images or more; there are {len(chosen)}")
    if not np.ptp(features, 0).any():  # scikit-learn would crash
        wrong = "t-SNE has nothing to map: the network's features are the same of all images"
        raise LabError(wrong)
    say(f"Embedding {share} ...")
    perplexity = min(30, (len(chosen) - 1) / 3)
    points = TSNE(init="pca", random_state=0, perplexity=perplexity).fit_transform(features)
    names = [numbered(label, name) for label, name in enumerate(loader.dataset.classes)]
    axes = "t-SNE dimension 1 (no unit: who is near whom matters, not how far)", "t-SNE dimension 2"
    title = f"t-SNE of the {features.shape[1]} features before the last layer\n{share}"
    yield Picture("tsne/tsne.jpg", title, (Scatter(points, labels, names, axes),))


def view_stn(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """Test images with the frame that the STN samples, and below what it makes of them."""
    subject = load_subject(flags, trained)
    if not subject.has_stn:
        raise LabError(
            f"{flags.ckpt_path} was trained without a spatial transformer; train one with: "
            "python train.py --bn --stn --ckpt_path checkpoints/stn"
        )
    images, labels = subject.photographs(STN_IMAGES)
    with torch.inference_mode():
        theta = subject.network.stn.localize(images)
        straightened = subject.pixels(warp(images, theta))
    size = images.shape[-1]
    frames = insight.sampling_frames(theta, size)  # (N, 5, 2)
    # Frames may reach beyond the image, where the sampled value is 0, mid-grey.
    beyond = max(-0.5 - frames.min(), frames.max() - size + 0.5)
    margin = int(np.ceil(np.clip(beyond, 1, size / 2)))
    around = ((0, 0), (margin,) * 2, (margin,) * 2, (0, 0))
    padded = np.pad(subject.pixels(images), around, constant_values=0.5)
    above = [
        Tile(image, subject.caption(label), marks=(Mark(frame), Mark(frame[:1])))
        for image, label, frame in zip(padded, labels, frames + margin, strict=True)
    ]
    below, starts = list(map(Tile, straightened)), range(0, len(images), 8)
    rows = [tiles[start : start + 8] for start in starts for tiles in (above, below)]
    title = "Spatial transformer: the frame it samples (above), what the classifier gets (below); "
    title += "the dot is the upper left corner"
    yield Picture("stn/stn.jpg", title, (Grid(rows),))


# ---------------------------------------------------------------- saliency, fooling


def view_saliency(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """Photographs, their saliency maps, both in one, and the object that the maps mark."""
    subject = load_subject(flags, trained)
    images, labels = subject.photographs(8)
    scored, names = scored_classes(subject, images, labels)
    maps = insight.saliency_maps(subject.network, images, scored)
    # The highest pixels would leave all else black: the top 1 % share the last colour.
    top = maps.flatten(1).quantile(0.99, 1)[:, None, None]
    heat, pixels = heat_of(maps / (top + 1e-12)), subject.pixels(images)
    masks = insight.object_masks(maps).cpu().numpy()[..., None]
    kinds = ["picture", "saliency", "overlay", "most salient\nquarter"]
    shown = (pixels, heat, 0.4 * pixels + 0.6 * heat, np.where(masks, pixels, 1))
    grid = lay_out_kinds(shown, kinds, names)
    yield Picture("saliency/saliency.jpg", "Which pixels sway the score of a class most", (grid,))


def scored_classes(
    subject: Subject, images: Tensor, labels: Sequence[int | None]
) -> tuple[Tensor, list[str]]:
    """Return the class of each photograph whose score is looked into, int64 (N,), and in words.

    That of `--target`, else what it shows, else what it is read as.
    """
    predictions = subject.network(images).argmax(1).tolist()
    target = subject.target()
    if target is not None:
        labels = [target] * len(images)
    labels = [p if label is None else label for label, p in zip(labels, predictions, strict=True)]
    names = [
        f"score of {subject.name(label)}\nread as {subject.name(prediction)}"
        for label, prediction in zip(labels, predictions, strict=True)
    ]
    return torch.tensor(labels, device=images.device), names


def lay_out_kinds(shown: Sequence[np.ndarray], kinds: Sequence[str], names: Sequence[str]) -> Grid:
    """Return kinds of pictures, (N, H, W, 3) each, below one another; of a few photographs beside.

    Args:
        names: of the N photographs.
    """
    tiles = [[Tile(image) for image in row] for row in shown]
    if len(names) < 4:  # a row a photograph then, not a column
        return Grid(list(zip(*tiles, strict=True)), names, kinds, side=2)
    return Grid(tiles, kinds, names)


def view_cam(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """What LayerCAM and Grad-CAM mark, beside saliency and LayerCAM of a network of no learning."""
    subject = load_subject(flags, trained)
    images, labels = subject.photographs(8)
    scored, names = scored_classes(subject, images, labels)
    first = "picture"
    if subject.has_stn:
        images = subject.network.stn(images)  # what the convolutions see
        first = "picture, as the\nspatial transformer\nhands it on"
    network = subject.body
    layers = insight.conv_layers(network)

    def score_of(model: nn.Module, images: Tensor) -> Tensor:
        return model(images).gather(1, scored[:, None]).sum()

    score, size = partial(score_of, network, images), images.shape[2:]
    name = cam.choose_layer(layers, flags.layer_idx, score)
    untaught = cam.randomised(network, flags.seed or 0)
    maps = [
        cam.activation_maps(layers[name], score),
        cam.activation_maps(layers[name], score, cam.grad_cam),
        insight.saliency_of(partial(score_of, network), images),
        cam.activation_maps(untaught.get_submodule(name), partial(score_of, untaught, images)),
    ]
    pixels = subject.pixels(images)
    shown = [pixels, *(cam.shown_over(pixels, cam.enlarged(own, size)) for own in maps)]
    kinds = [first, "LayerCAM", "Grad-CAM", "saliency", "LayerCAM,\nweights shuffled"]
    number = list(layers).index(name)
    title = f"Where layer {number} ({name}) sees what speaks for a class"
    yield Picture("cam/cam.jpg", title, (lay_out_kinds(shown, kinds, names),))


def view_fooling(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """An image, one that the network takes for something else, and their difference."""
    subject = load_subject(flags, trained)
    image, (label,) = subject.photographs(1)
    target = subject.target()
    if target is None:
        target = (int(subject.network(image).argmax()) + 1) % len(subject.classes)
    network, preprocess = subject.network, subject.preprocess
    fooling = insight.make_fooling_image(network, image, target, preprocess, **subject.given)
    wanted, difference = subject.name(target), fooling.difference
    if fooling.steps == 0:
        verdict = f"already read as {wanted}: nothing to do"
    elif fooling.fooled:
        verdict = f"read as {wanted} after {counted(fooling.steps, 'steps')}"
    else:
        verdict = f"not read as {wanted} within {counted(fooling.steps, 'steps')}; try more --steps"
    l2, largest = difference.norm().item(), difference.abs().max().item()
    size = f"L2 {l2:.2f}, L-infinity {largest:.3f} of pixels in [0, 1]"
    say(f"{subject.caption(label)}: {verdict}; {size}")
    (before,), (after,) = subject.readings(image), subject.readings(fooling.image)
    once, tenfold = (to_arrays(0.5 + scale * difference)[0] for scale in (1, 10))
    tiles = [
        Tile(subject.pixels(image)[0], f"original\n{before}"),
        Tile(subject.pixels(fooling.image)[0], f"fooling image\n{after}"),
        Tile(once, "difference\n(grey is 0)"),
        Tile(tenfold, "difference x 10\n(grey is 0)"),
    ]
    yield Picture("fooling/fooling.jpg", f"{verdict}\n{size}", (Grid([tiles], side=2.6),))


# ---------------------------------------------------------------- class, invert


def view_class(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """The image of each class that its score climbs to, and the course of the climb."""
    subject = load_subject(flags, trained)
    targets = subject.targets()
    if not targets and subject.trained is None:
        targets = [index for index in EXAMPLES if index < len(subject.classes)]
    targets = targets or list(range(len(subject.classes)))
    course = {}

    def watch(step: int, steps: int, images: Tensor) -> None:
        # Six moments, closer together at the start, where most happens.
        moments = {max(1, round(steps * (k / 6) ** 2)) for k in range(1, 7)}
        if step in moments:
            course[f"step {step}"] = [Tile(image) for image in subject.pixels(images[:6])]

    found = insight.visualize_classes(
        subject.network, targets, subject.preprocess, watch=watch, **subject.given
    )
    confidences = subject.network(found).softmax(1)[range(len(targets)), targets].tolist()
    names = [subject.name(target) for target in targets]
    captions = [f"{n}\n{c:.0%} sure" for n, c in zip(names, confidences, strict=True)]
    looks = sheet(subject.pixels(found), captions, 9)
    yield Picture("class/class.jpg", "What each class looks like to the network", (looks,))
    climb = Grid(list(zip(*course.values(), strict=True)), names[:6], list(course))
    yield Picture("class/course.jpg", "The course of the ascent", (climb,))


def view_invert(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """Photographs beside what can be told of them from deeper and deeper layers."""
    subject = load_subject(flags, trained)
    images, _ = subject.photographs(3)
    first = "image"
    if subject.has_stn:
        images = subject.network.stn(images)  # what it leaves out, no layer behind it has seen
        first = "image, as the spatial\ntransformer hands it on"
    body, preprocess = subject.body, subject.preprocess
    layers = list(insight.conv_layers(body).values())
    originals = preprocess.denormalize(images)
    columns = {first: [Tile(pixels) for pixels in subject.pixels(images)]}
    for place in sorted({round(k * (len(layers) - 1) / 4) for k in range(5)}):
        found = insight.invert_features(body, layers[place], images, preprocess, **subject.given)
        quality = insight.psnr(preprocess.denormalize(found), originals).tolist()
        columns[f"from layer {place}"] = [
            Tile(pixels, note=f"{decibels:.1f} dB")
            for pixels, decibels in zip(subject.pixels(found), quality, strict=True)
        ]
    title = "What a layer still knows of an image: inverted features (PSNR below)"
    grid = Grid(list(zip(*columns.values(), strict=True)), columns=list(columns), side=2)
    yield Picture("invert/invert.jpg", title, (grid,))


# ---------------------------------------------------------------- attention


def view_attention(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """Where positions of a non-local block look."""
    subject = load_subject(flags, trained)
    blocks = list(insight.non_local_blocks(subject.network).items())
    if not blocks:
        raise LabError(
            f"{flags.ckpt_path} has no non-local block; train a network with one: "
            "python train.py --bn --non_local --ckpt_path checkpoints/non_local"
        )
    name, block = blocks[
        check_index("--layer_idx", flags.layer_idx or 0, len(blocks), "non-local blocks")
    ]
    images, (label,) = subject.photographs(1)
    features = inputs_of(subject.network, block, images)
    height, width = features.shape[2:]
    if flags.position:
        positions = [flags.position]
    else:
        places = [(1, 1), (1, 3), (2, 2), (3, 1), (3, 3)]  # fourths of height and width
        positions = [[y * height // 4, x * width // 4] for y, x in places]
    maps = block.attention(features, positions)[0]  # (P, h, w)
    (image,) = subject.pixels(subject.network.stn(images) if subject.has_stn else images)
    maps = F.interpolate(maps[:, None], size=image.shape[:2], mode="bilinear")[:, 0]
    heat = heat_of(maps / maps.amax((1, 2), keepdim=True))  # (P, H, W, 3)
    scale = np.divide(image.shape[:2], (height, width))  # pixels a position
    lookers = []
    for position in positions:
        y, x = (np.array(position) + 0.5) * scale - 0.5
        lookers.append(Tile(image, marks=(Mark(np.array([[x, y]]), "cyan"),)))
    looks = [Tile(look) for look in 0.35 * image + 0.65 * heat]
    origins = [f"from {tuple(position)}" for position in positions]
    grid = Grid([lookers, looks], ["the position", "where it looks"], origins, side=2)
    title = f"Where positions of {name} look: {subject.caption(label)}"
    yield Picture("attention/attention.jpg", title, (grid,))


def numbered(label: int, name: str) -> str:
    """Return a class's name with its number in front, which some have already."""
    name = shorten(name)
    return name if re.match(rf"0*{label}(?!\d)", name) else f"{label}_{name}"
