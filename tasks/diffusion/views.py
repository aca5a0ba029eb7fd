"""What visualize.py shows of diffusion: the U, where words look, how much of a picture stays."""

from argparse import Namespace
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from lab.console import LabError, UsageError
from lab.images import image_path, open_image
from lab.pictures import Colours, Grid, Picture, Tile, shorten
from lab.runtime import Runtime
from tasks.diffusion.census import Diagram, census, say_census
from tasks.diffusion.networks import stable_diffusion_unet
from tasks.diffusion.painting import (
    GUIDANCE,
    STEPS,
    cut_off,
    fit,
    paint,
    reconstruct,
    side_of,
)

PROMPT = "a stop sign at night in front of trees"
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
PUBLISHED = "Stable Diffusion 1.5"


# ---------------------------------------------------------------- the U


def view_unet(args: Namespace, state: dict[str, Any] | None, runtime: Runtime) -> Iterator[Picture]:
    """The blocks of our UNet, where there is one, and of Stable Diffusion's."""
    from tasks.diffusion import load_trained

    unets = {PUBLISHED: stable_diffusion_unet()}
    if state is not None:
        unets = {"Ours": load_trained(state).unet} | unets
    diagrams = []
    for name, unet in unets.items():
        blocks = census(unet)
        say_census(name, blocks)
        diagrams.append(Diagram(name, blocks))
    title = "UNet2DConditionModel: yellow blocks attend to the words, blue ones do not"
    yield Picture("unet/unet.jpg", title, tuple(diagrams))


# ---------------------------------------------------------------- where words look


class Watching(AttnProcessor):
    """Attention that lets see how much each place attends to each word.

    Args:
        seen: gets probabilities, (N, places, words), the mean over heads.
    """

    def __init__(self, seen: list[Tensor]):
        super().__init__()
        self.seen = seen

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *args, **options):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        heads = attn.get_attention_scores(query, key)  # (N * heads, places, words)
        self.seen.append(heads.unflatten(0, (-1, attn.heads)).mean(1).float())
        return super().__call__(attn, hidden_states, encoder_hidden_states, *args, **options)


def attention_of_words(
    pipeline: Any, prompt: str, runtime: Runtime, seed: int, steps: int
) -> tuple[np.ndarray, Tensor]:
    """Paint a picture, and watch where it attends to its words.

    Returns:
        The picture, uint8 (H, W, 3), and the mean over heads, layers and steps of how much each
        place attends to each token, (tokens, H, W).
    """
    seen: list[Tensor] = []
    unet, plain = pipeline.unet, pipeline.unet.attn_processors
    watching = {name: Watching(seen) if ".attn2." in name else own for name, own in plain.items()}
    unet.set_attn_processor(watching)
    try:
        painted = paint(pipeline, [prompt], [seed], runtime, steps=steps, guidance=GUIDANCE)
    finally:
        unet.set_attn_processor(plain)
    picture = painted.pictures[0]
    total = torch.zeros(())
    for heads in seen:  # of the prompt alone: guidance puts the empty one before it
        side = int(heads.shape[1] ** 0.5)
        maps = heads[-1].T.unflatten(1, (side, side))[None].cpu()
        total = total + F.interpolate(maps, picture.shape[:2], mode="bilinear")[0]
    return picture, total / len(seen)


def view_words(args: Namespace, state: dict[str, Any], runtime: Runtime) -> Iterator[Picture]:
    """Where in the picture each word of a prompt looks."""
    pipeline = pipeline_for(args, state, runtime)
    prompt = args.prompt or PROMPT
    if cut_off(pipeline, prompt):
        raise UsageError("--prompt has more words than the text encoder takes")
    ids = pipeline.tokenizer(prompt).input_ids
    picture, maps = attention_of_words(
        pipeline, prompt, runtime, args.seed or 0, args.steps or STEPS
    )
    names = ["(start)", *(pipeline.tokenizer.decode([k]).strip() for k in ids[1:-1]), "(end)"]
    # Each against its own mean: most attention goes to start and end, whatever is painted.
    relative = [(own / own.mean()).numpy() for own in maps[: len(names)]]
    shares = (maps.mean((1, 2)) / maps.mean((1, 2)).sum()).tolist()
    tiles = [
        Tile(own, shorten(name, 12), f"{share:.1%} of all")
        for name, own, share in zip(names, relative, shares, strict=False)
    ]
    rows = [tiles[start : start + 7] for start in range(0, len(tiles), 7)]
    high = max(float(own.max()) for own in relative)
    yield Picture(
        "words/words.jpg",
        f'"{shorten(prompt, 80)}"',
        (
            Grid([[Tile(picture)]], side=1.8),
            Grid(rows, title="Where each word is attended to, over its mean", side=1.3,
                 colours=Colours("viridis", 0, max(high, 1.5), "times the mean")),
        ),
    )  # fmt: skip


# ---------------------------------------------------------------- strength


def view_strength(args: Namespace, state: dict[str, Any], runtime: Runtime) -> Iterator[Picture]:
    """One picture, image to image, at strengths from 0.2 to 1."""
    pipeline = pipeline_for(args, state, runtime)
    prompt = args.prompt or PROMPT
    image, name = picture_to_turn(args, state)
    side = side_of(pipeline)
    made = [Tile(np.asarray(fit(image, side)), name)]
    made.append(Tile(reconstruct(pipeline, [image], runtime)[0], "0: the autoencoder's"))
    for strength in STRENGTHS:
        painted = paint(
            pipeline, [prompt], [args.seed or 0], runtime, steps=args.steps or STEPS,
            guidance=GUIDANCE, images=[image], strength=strength,
        )  # fmt: skip
        made.append(Tile(painted.pictures[0], f"strength {strength:g}"))
    title = f'Image to image, "{shorten(prompt, 60)}": how much noise the picture gets'
    yield Picture("strength/strength.jpg", title, (Grid([made], side=1.5),))


def picture_to_turn(args: Namespace, state: dict[str, Any]) -> tuple[Any, str]:
    """Return the picture that `--image` names, else a drawn one, and what to call it."""
    from world.captions import Facts, draw_picture

    if args.image is None:
        return draw_picture(
            Facts(0, "day", "clear", "sky", False), np.random.default_rng(0)
        ), "drawn"
    path = image_path(args.image, args.save_dir / "images")
    try:
        return open_image(path), shorten(path.name, 18)
    except OSError as error:
        raise LabError(f"{path}: {error.strerror or error}") from error


def pipeline_for(args: Namespace, state: dict[str, Any] | None, runtime: Runtime) -> Any:
    """Return the pipeline of the run that is looked into.

    Raises:
        UsageError: there is none.
    """
    from tasks.diffusion import load_trained
    from tasks.diffusion.found import pipeline_of

    if state is None:
        raise UsageError(f"--type {args.type} needs weights: give --ckpt_path")
    return pipeline_of(state, load_trained(state), runtime)


VIEWS = {"unet": view_unet, "words": view_words, "strength": view_strength}
