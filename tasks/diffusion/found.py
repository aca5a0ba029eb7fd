"""What test.py prints and draws: what is read in pictures that were made, and how they differ."""

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datasets import ImageDataset
from lab.console import LabError, as_text, progress, say
from lab.images import Preprocess, open_image, to_arrays
from lab.pictures import Grid, Picture, Tile, draw, publish, shorten
from lab.runtime import Runtime, place, start_as
from tasks.diffusion.networks import SIZE, Autoencoder, LatentDiffusion, make_pipeline
from tasks.diffusion.painting import GUIDANCE, STEPS, STRENGTH, fit, paint, prepared
from tasks.diffusion.words import restore_tokenizer
from tasks.reading import SignReader, plain_name

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

    from tasks.diffusion.data import LatentDataset

PER_CLASS = 10  # pictures painted of each class
# A drawn picture shows more around its sign than the photographs that a reader has learned from:
# it gets the middle, of so many of the sides.
MIDDLE = 0.88
ENCODED = 64  # pictures at a time
EXAMPLES = 8  # drawn
TIMED = 3  # pictures painted one by one, for their time


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
    width = max(5, *map(len, classes))
    say(f"{'class':{width}}  " + "  ".join(f"{name:>9}" for name in columns))
    for label, name in enumerate(classes):
        own = labels == label
        if own.any():
            shares = ((read[own] == label).float().mean() for read in columns.values())
            say(f"{name:{width}}  " + "  ".join(f"{float(share):9.2%}" for share in shares))
    shares = [float((read == labels).float().mean()) for read in columns.values()]
    say(f"{'all':{width}}  " + "  ".join(f"{share:9.2%}" for share in shares))


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
def reconstruct(model: Autoencoder, pixels: Tensor, runtime: Runtime) -> np.ndarray:
    """Return what an autoencoder in evaluation mode makes of pictures, uint8 (N, H, W, 3)."""
    preprocess, found = Preprocess((SIZE, SIZE)), []
    for part in progress(pixels.split(ENCODED), label="reconstructing"):
        images = preprocess.normalize(part.to(runtime.device))
        with runtime.autocast():
            decoded = model(images)[0].float()
        found.append(to_arrays(preprocess.denormalize(decoded)))
    return (np.concatenate(found) * 255).round().astype(np.uint8)


def report_reconstructions(
    args: Namespace,
    state: dict[str, Any],
    model: Autoencoder,
    figures: dict[str, float],
    dataset: ImageDataset,
) -> None:
    """Print how near reconstructions come, and whether their signs can still be read."""
    say(f"PSNR {figures['psnr']:.2f} dB")
    runtime = start_as(state, args.device, args.precision)
    pixels = dataset.pixels(range(len(dataset))).cpu()
    decoded = reconstruct(place(model.eval(), runtime), pixels, runtime)
    pairs = [(own, made) for own, made in zip(pixels.numpy(), decoded, strict=True)]
    if args.read is not None:
        classes = [plain_name(name) for name in state["class_names"]]
        reader = SignReader(args.read, classes, args)
        read = [reader.read([middle(p) for p in own])[0] for own in zip(*pairs, strict=True)]
        labels = dataset.labels.cpu()
        say(f"Read by {args.read}:")
        say_read(classes, labels, {"originals": read[0], "decoded": read[1]})
        shares = [float((own == labels).float().mean()) for own in read]
        say(f"decoded over originals: {shares[1] / max(shares[0], 1e-9):.3f}")
    chosen = np.linspace(0, len(pairs) - 1, min(EXAMPLES, len(pairs))).astype(int)
    draw_pairs(args, [pairs[k] for k in chosen], "Pictures, and what the autoencoder keeps of them")


def draw_pairs(args: Namespace, pairs: Sequence[tuple[np.ndarray, np.ndarray]], title: str) -> None:
    """Draw pictures, and below each what was made of it."""
    rows = [[Tile(picture) for picture in own] for own in zip(*pairs, strict=True)]
    picture = Picture(
        "reconstructions.jpg", title, (Grid(rows, rows=["picture", "decoded"], side=1.5),)
    )
    publish(draw(picture), args.ckpt_path / picture.path)


def reconstruct_files(
    args: Namespace, state: dict[str, Any], model: Autoencoder, files: list[Path], runtime: Runtime
) -> None:
    """Draw what an autoencoder makes of pictures of one's own."""
    pixels = torch.from_numpy(np.stack([np.asarray(open_square(path)) for path in files]))
    decoded = reconstruct(model.eval(), pixels, runtime)
    pairs = list(zip(pixels.numpy(), decoded, strict=True))[: 2 * EXAMPLES]
    draw_pairs(args, pairs, "Pictures, and what the autoencoder keeps of them")


def open_square(path: Path) -> Image.Image:
    """Return the middle of a picture at the network's size.

    Raises:
        LabError: it cannot be read.
    """
    try:
        return fit(open_image(path), SIZE)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from error


# ---------------------------------------------------------------- painted pictures


def pipeline_of(
    state: dict[str, Any], model: LatentDiffusion, runtime: Runtime
) -> "StableDiffusionPipeline":
    """Return the pipeline of a checkpoint's network."""
    model = place(model.eval(), runtime)
    return prepared(make_pipeline(model, restore_tokenizer(state["tokenizer"])))


def report_painted(
    args: Namespace,
    state: dict[str, Any],
    model: LatentDiffusion,
    figures: dict[str, float],
    dataset: "LatentDataset",
) -> None:
    """Paint pictures for the test split's sentences; print how long it takes and what is read.

    Of each class, the first PER_CLASS pictures lend their sentences, and are what the painted ones
    are compared to; as many others say how far drawn pictures are from each other.
    """
    say(f"Of what is to be predicted, {as_text(figures['r2'])} is")
    runtime = start_as(state, args.device, args.precision)
    pipeline = pipeline_of(state, model, runtime)
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
    classes = [plain_name(name) for name in state["class_names"]]
    if args.read is not None:
        reader = SignReader(args.read, classes, args)
        drawn = dataset.captioned.split.images.numpy()
        sets = [[middle(p) for p in part] for part in (painted, drawn[own], drawn[others])]
        say(f"Read by {args.read}:")
        read = {"painted": reader.read(sets[0])[0], "drawn": reader.read(sets[1])[0]}
        say_read(classes, labels[own], read)
        features = [reader.features(part) for part in sets if part]
        say(f"Fréchet distance to drawn pictures: {frechet_distance(*features[:2]):.2f}")
        if len(features) > 2:
            apart = frechet_distance(*features[1:])
            say(f"of as many other drawn pictures:    {apart:.2f}")
    draw_painted(args, classes, labels[own], painted)
    if args.save:
        save_results(args.ckpt_path / "results", classes, labels[own], painted)


def first_of_each(labels: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of each class's first `count` pictures, and of the `count` after them."""
    found: tuple[list[int], list[int]] = [], []
    for label in labels.unique().tolist():
        own = (labels == label).nonzero()[:, 0].tolist()
        found[0].extend(own[:count])
        found[1].extend(own[count : 2 * count])
    return np.array(found[0], int), np.array(found[1], int)


def draw_painted(
    args: Namespace, classes: Sequence[str], labels: Tensor, painted: np.ndarray
) -> None:
    """Draw what was painted of each class, a class a row of half the picture's width."""
    rows = [
        [
            Tile(painted[int(k)], classes[label].replace("_", " ") if not number else "")
            for number, k in enumerate((labels == label).nonzero()[: EXAMPLES // 2, 0])
        ]
        for label in labels.unique().tolist()
    ]
    wide = [sum(rows[k : k + 2], []) for k in range(0, len(rows), 2)]
    picture = Picture("painted.jpg", "Painted from words", (Grid(wide, side=0.9),))
    publish(draw(picture), args.ckpt_path / picture.path)


def save_results(folder: Path, classes: Sequence[str], labels: Tensor, painted: np.ndarray) -> None:
    """Write every painted picture as CLASS_NNNNN.png.

    Raises:
        LabError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*_[0-9][0-9][0-9][0-9][0-9].png"):
            old.unlink()
        for index, (label, picture) in enumerate(zip(labels.tolist(), painted, strict=True)):
            Image.fromarray(picture).save(folder / f"{classes[label]}_{index:05d}.png")
    except OSError as error:
        raise LabError(f"cannot write to {folder}: {error.strerror or error}") from error
    say(f"Saved {len(painted):,} pictures in {folder}")


# ---------------------------------------------------------------- signs turned into others


def turn_files(
    args: Namespace,
    state: dict[str, Any],
    model: LatentDiffusion,
    files: list[Path],
    runtime: Runtime,
) -> None:
    """Turn the sign in each picture into another one, image to image, and print what is read.

    The signs asked for take turns; that of the folder that a picture is in is left out.
    """
    classes = [plain_name(name) for name in state["class_names"]]
    pipeline = pipeline_of(state, model, runtime)
    wanted = others_in_turn([plain_name(path.parent.name) for path in files], classes)
    images = [open_square(path) for path in files]
    prompts = [f"a {classes[label].replace('_', ' ')} sign" for label in wanted]
    turned = paint(pipeline, prompts, range(len(files)), runtime, images=images).pictures
    say(f"Turned into other signs, at strength {STRENGTH:g} and guidance {GUIDANCE:g}:")
    read = None
    if args.read is not None:
        read, certainty = SignReader(args.read, classes, args).read(
            [Image.fromarray(picture) for picture in turned]
        )
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
        "turned.jpg", f"Image to image, strength {STRENGTH:g}",
        (Grid(rows, rows=["picture", "turned into"], side=1.5),),
    )  # fmt: skip
    publish(draw(picture), args.ckpt_path / picture.path)


def others_in_turn(names: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Return a class for each name, all of them in turn, but never its own."""
    found = []
    for index, name in enumerate(names):
        label = index % len(classes)
        found.append((label + (classes[label] == name)) % len(classes))
    return found
