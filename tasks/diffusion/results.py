"""What test.py prints and draws: what is read in pictures that were made, and how they differ."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from torch import Tensor, nn

from datasets import ImageDataset
from lab.console import as_text, padded, progress, say
from lab.drawing import draw, publish
from lab.fetching import given_images, name_of
from lab.images import to_arrays
from lab.pictures import Grid, Picture, Tile, frame, longest_line, shorten
from lab.runtime import Runtime
from tasks import TestFlags
from tasks.diffusion import GUIDANCE, STEPS, STRENGTH
from tasks.diffusion.data import ENCODED, PREPROCESS, LatentDataset
from tasks.diffusion.networks import make_pipeline
from tasks.diffusion.objective import DenoisingMeter, ReconstructionMeter
from tasks.diffusion.painting import as_bytes, cut_to, lost_by_cutting, paint, prepared, say_cut
from tasks.diffusion.words import restore_tokenizer
from tasks.sign_reader import SignReader, plain_name
from tasks.testing import save_results
from tasks.trained import Trained
from world.captions import PIXELS

PER_CLASS = 10  # pictures painted of each class
# A drawn picture shows more around its sign than the photographs that a reader has learned from:
# it gets the middle, of so many of the sides.
MIDDLE = 0.88
EXAMPLES = 8  # drawn
TIMED = 3  # pictures painted one by one, for their time


def report(
    trained: Trained,
    flags: TestFlags,
    meter: ReconstructionMeter | DenoisingMeter,
    dataset: ImageDataset | LatentDataset,
) -> dict[str, float] | None:
    """Print how good reconstructions or painted pictures are, and draw some.

    Returns:
        Of painted ones that were read, the share that is what was asked for.
    """
    of_autoencoder = trained.state["network"] == "autoencoder"
    show = report_reconstructions if of_autoencoder else report_painted
    return show(trained, flags, meter.figures, dataset)


def read_pictures(trained: Trained, flags: TestFlags) -> None:
    """Draw what becomes of pictures: reconstructions, or other signs made of them."""
    of_autoencoder = trained.state["network"] == "autoencoder"
    show = reconstruct_files if of_autoencoder else turn_files
    paths, images, lost = [], [], []
    for path, image in given_images(flags.image):
        paths.append(path)
        images.append(cut_to(image, PIXELS, PIXELS))
        lost.append(lost_by_cutting(image, PIXELS, PIXELS))
    say_cut(lost)
    show(trained, flags, paths, images)


# ---------------------------------------------------------------- reading


def middle(picture: np.ndarray) -> Image.Image:
    """Return the part of a picture, uint8 (H, W, 3), that is read."""
    height, width = picture.shape[:2]
    top, left = (round(side * (1 - MIDDLE) / 2) for side in (height, width))
    return Image.fromarray(picture).crop((left, top, width - left, height - top))


def say_read(classes: Sequence[str], labels: Tensor, columns: dict[str, Tensor]) -> None:
    """Print, class by class, the share of pictures that are read as what they show.

    Args:
        labels: classes that are shown, int64 (N,).
        columns: what was read, int64 (N,) each, by what was read.
    """
    width = max(5, longest_line(classes))
    say(f"{'class':{width}}  " + "  ".join(f"{name:>9}" for name in columns))
    for label, name in enumerate(classes):
        own = labels == label
        if own.any():
            shares = ((read[own] == label).float().mean() for read in columns.values())
            say(f"{padded(name, width)}  " + "  ".join(f"{float(share):9.2%}" for share in shares))
    shares = [share_of(read, labels) for read in columns.values()]
    say(f"{'all':{width}}  " + "  ".join(f"{share:9.2%}" for share in shares))


def share_of(read: Tensor, labels: Tensor) -> float:
    """Return the share of pictures that are read as what they show."""
    return float((read == labels).float().mean())


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Return Fréchet's distance of two sets of features, (N, D), taken as Gaussians.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), as Heusel et al. 2017 compare sets of pictures.
    The trace of the root is the sum of the singular values of C1^(1/2) C2^(1/2), and of centred
    features X1 X2^T over the numbers of rows: no root of a singular matrix is needed.
    """
    means = [features.mean(0) for features in (first, second)]
    centred = [
        (features - mean) / np.sqrt(len(features) - 1)
        for features, mean in zip((first, second), means, strict=True)
    ]
    root = np.linalg.svd(centred[0].astype(float) @ centred[1].astype(float).T, compute_uv=False)
    spread = sum(float(np.square(own).sum()) for own in centred)
    return float(np.square(means[0] - means[1]).sum()) + spread - 2 * float(root.sum())


# ---------------------------------------------------------------- reconstructions


@torch.inference_mode()
def reconstruct(network: nn.Module, pixels: Tensor, runtime: Runtime) -> np.ndarray:
    """Return what an autoencoder in evaluation mode makes of pictures, uint8 (N, H, W, 3)."""
    pictures = []
    for chunk in progress(pixels.split(ENCODED), label="reconstructing"):
        images = PREPROCESS.normalize(chunk.to(runtime.device))
        with runtime.autocast():
            decoded = network(images)[0].float()
        pictures.append(to_arrays(PREPROCESS.denormalize(decoded)))
    return as_bytes(np.concatenate(pictures))


def report_reconstructions(
    trained: Trained, flags: TestFlags, figures: dict[str, float], dataset: ImageDataset
) -> None:
    """Print how near reconstructions come, and whether their signs can still be read."""
    say(f"PSNR {figures['psnr']:.2f} dB")
    pixels = dataset.pixels(range(len(dataset))).cpu()
    decoded = reconstruct(trained.network, pixels, trained.runtime)
    pairs = list(zip(pixels.numpy(), decoded, strict=True))
    if flags.read is not None:
        classes = [plain_name(name) for name in trained.classes]
        reader = SignReader(flags, classes)
        read = [reader.read([middle(p) for p in own])[0] for own in zip(*pairs, strict=True)]
        labels = dataset.labels.cpu()
        say(f"Read by {flags.read}:")
        say_read(classes, labels, {"originals": read[0], "decoded": read[1]})
        shares = [share_of(own, labels) for own in read]
        say(f"decoded over originals: {shares[1] / max(shares[0], 1e-9):.3f}")
    chosen = np.linspace(0, len(pairs) - 1, min(EXAMPLES, len(pairs))).astype(int)
    draw_pairs(trained.results / "reconstructions.jpg", [pairs[k] for k in chosen])


def draw_pairs(path: Path, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Draw pictures, and below each what was made of it."""
    rows = [[Tile(picture) for picture in own] for own in zip(*pairs, strict=True)]
    title = "Pictures, and what the autoencoder keeps of them"
    grid = Grid(rows, rows=["picture", "decoded"], side=1.5)
    publish(draw(Picture(path.name, title, (grid,))), path)


def reconstruct_files(
    trained: Trained, flags: TestFlags, files: Sequence[Path], images: Sequence[Image.Image]
) -> None:
    """Draw what an autoencoder makes of pictures of one's own."""
    shown = [np.asarray(image) for image in images[: 2 * EXAMPLES]]
    decoded = reconstruct(trained.network, torch.from_numpy(np.stack(shown)), trained.runtime)
    path = trained.results / f"reconstructions_{name_of(flags.image)}.jpg"
    draw_pairs(path, list(zip(shown, decoded, strict=True)))
    if len(images) > len(shown):
        say(f"It shows the first {len(shown)} of {len(images):,} pictures")


# ---------------------------------------------------------------- painted pictures


def pipeline_of(trained: Trained) -> StableDiffusionPipeline:
    """Return the pipeline of a trained network."""
    tokenizer = restore_tokenizer(trained.state["tokenizer"])
    return prepared(make_pipeline(trained.network, tokenizer))


def report_painted(
    trained: Trained, flags: TestFlags, figures: dict[str, float], dataset: LatentDataset
) -> dict[str, float] | None:
    """Paint pictures for the test split's sentences; print how long it takes and what is read.

    Of each class, the first PER_CLASS pictures lend their sentences, and are what the painted ones
    are compared to; as many others say how far drawn pictures are from each other.
    """
    say(f"Of the variance of what is to be predicted, {as_text(figures['r2'])} is explained (R2)")
    pipeline, runtime = pipeline_of(trained), trained.runtime
    labels = dataset.captioned.split.labels
    own, others = first_of_each(labels, PER_CLASS)
    prompts = [dataset.captioned.sentences[k][0] for k in own]
    began = time.perf_counter()
    painted = paint(pipeline, prompts, range(len(prompts)), runtime).pictures
    together = (time.perf_counter() - began) / len(prompts)
    began = time.perf_counter()
    for seed in range(TIMED):
        paint(pipeline, prompts[:1], [seed], runtime)
    alone = (time.perf_counter() - began) / TIMED
    say(
        f"Painted {len(prompts)} pictures in {STEPS} steps at guidance {GUIDANCE:g}: "
        f"{together:.3f} s a picture, {alone:.3f} s one by one"
    )
    classes, read = [plain_name(name) for name in trained.classes], {}
    if flags.read is not None:
        reader = SignReader(flags, classes)
        drawn = dataset.captioned.split.images.numpy()
        sets = [[middle(p) for p in some] for some in (painted, drawn[own], drawn[others])]
        say(f"Read by {flags.read}:")
        read = {"painted": reader.read(sets[0])[0], "drawn": reader.read(sets[1])[0]}
        say_read(classes, labels[own], read)
        features = [reader.features(some) for some in sets if len(some) > 1]  # one has no spread
        if features:
            say(f"Fréchet distance to drawn pictures: {frechet_distance(*features[:2]):.2f}")
        if len(features) > 2:
            apart = frechet_distance(*features[1:])
            say(f"of as many other drawn pictures:    {apart:.2f}")
    draw_painted(trained.results, classes, labels[own], painted, read.get("painted"))
    if flags.save:
        pairs = enumerate(zip(labels[own].tolist(), painted, strict=True))
        pictures = (
            (f"{classes[label]}_{index:05d}.png", Image.fromarray(picture))
            for index, (label, picture) in pairs
        )
        save_results(trained, pictures, len(painted), "*_[0-9][0-9][0-9][0-9][0-9].png")
    return {"read_as_asked": share_of(read["painted"], labels[own])} if read else None


def first_of_each(labels: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of each class's first `count` pictures, and of the `count` after them."""
    by_class = [(labels == label).nonzero()[:, 0].numpy() for label in labels.unique()]
    first, second = (np.concatenate([own[k : k + count] for own in by_class]) for k in (0, count))
    return first, second


def draw_painted(
    folder: Path, classes: Sequence[str], labels: Tensor, painted: np.ndarray, read: Tensor | None
) -> None:
    """Draw what was painted of each class, a class a row of half the picture's width.

    Args:
        read: what a reader took each for, if one was asked; what it took for another is framed.
    """
    names, rows = [name.replace("_", " ") for name in classes], []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[: EXAMPLES // 2, 0].tolist()
        notes = [""] * len(own) if read is None else [names[read[k]] for k in own]
        rows.append([
            Tile(
                painted[k], names[label] if k == own[0] else "", note,
                (frame((1, 1, PIXELS - 1, PIXELS - 1)),) if note not in ("", names[label]) else (),
            )
            for k, note in zip(own, notes, strict=True)
        ])  # fmt: skip
    wide = [sum(rows[k : k + 2], []) for k in range(0, len(rows), 2)]
    title = "Painted from words"
    if read is not None:
        right = f"{int((read == labels).sum())} of {len(read)} painted"
        title += f"; below, what a reader takes each for ({right} are what was asked for)"
    picture = Picture("painted.jpg", title, (Grid(wide, side=0.9),))
    publish(draw(picture), folder / picture.path)


# ---------------------------------------------------------------- signs turned into others


def turn_files(
    trained: Trained, flags: TestFlags, files: Sequence[Path], images: Sequence[Image.Image]
) -> None:
    """Turn the sign in each picture into another one, image to image, and print what is read.

    The signs asked for take turns; that of the folder that a picture is in is left out.
    """
    classes = [plain_name(name) for name in trained.classes]
    wanted = others_in_turn([plain_name(path.parent.name) for path in files], classes)
    prompts = [f"a {classes[label].replace('_', ' ')} sign" for label in wanted]
    pipeline, seeds = pipeline_of(trained), range(len(files))
    turned = paint(pipeline, prompts, seeds, trained.runtime, images=images).pictures
    say(f"Turned into other signs, at strength {STRENGTH:g} and guidance {GUIDANCE:g}:")
    read = None
    if flags.read is not None:
        reader = SignReader(flags, classes)
        read, certainty = reader.read([Image.fromarray(picture) for picture in turned])
    for index, (path, label) in enumerate(zip(files, wanted, strict=True)):
        seen = ""
        if read is not None:
            seen = f", read as {classes[int(read[index])]} {float(certainty[index]):.1%}"
        say(f"{path.name}  into {classes[label]}{seen}")
    if read is not None:
        right = float((read == torch.tensor(wanted)).float().mean())
        say(f"Read as what was asked for: {right:.2%}")
    shown = range(min(len(files), EXAMPLES))
    rows = [
        [Tile(np.asarray(images[k]), note=shorten(files[k].name, 18)) for k in shown],
        [Tile(turned[k], note=classes[wanted[k]].replace("_", " ")) for k in shown],
    ]
    picture = Picture(
        f"turned_{name_of(flags.image)}.jpg", f"Image to image, strength {STRENGTH:g}",
        (Grid(rows, rows=["picture", "turned into"], side=1.5),),
    )  # fmt: skip
    publish(draw(picture), trained.results / picture.path)


def others_in_turn(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return a class for each name, all of them in turn, but never its own."""
    count = len(classes)
    return [(index + (classes[index % count] == name)) % count for index, name in enumerate(names)]
