"""What visualize.py shows of diffusion: the U, where words look, how much of a picture stays."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import StableDiffusionPipeline
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import Tensor

from lab.console import UsageError
from lab.fetching import image_path
from lab.images import read_image
from lab.pictures import Colours, Grid, Picture, Tile, shorten
from lab.runtime import Runtime
from tasks import ViewFlags
from tasks.diffusion import STEPS
from tasks.diffusion.census import Diagram, census, say_census
from tasks.diffusion.networks import stable_diffusion_unet
from tasks.diffusion.painting import (
    cut_off,
    cut_to,
    lost_by_cutting,
    paint,
    reconstruct,
    say_cut,
    size_of,
)
from tasks.diffusion.results import pipeline_of
from tasks.trained import Trained
from world.captions import Facts, draw_picture

PROMPT = "a stop sign at night in front of trees"
STRENGTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
PUBLISHED = "Stable Diffusion 1.5"


def view_unet(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """The blocks of our UNet, where there is one, and of Stable Diffusion's."""
    unets = {} if trained is None else {"Ours": trained.network.unet}
    unets[PUBLISHED] = stable_diffusion_unet()
    diagrams = []
    for name, unet in unets.items():
        blocks = census(unet)
        say_census(name, blocks)
        diagrams.append(Diagram(name, blocks))
    title = "UNet2DConditionModel: yellow blocks attend to the words, blue ones do not"
    yield Picture("unet/unet.jpg", title, tuple(diagrams))


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
    pipeline: StableDiffusionPipeline, prompt: str, runtime: Runtime, seed: int, steps: int
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
        painted = paint(pipeline, [prompt], [seed], runtime, steps=steps)
    finally:
        unet.set_attn_processor(plain)
    picture = painted.pictures[0]
    total = torch.zeros(())
    for heads in seen:  # of the prompt alone: guidance puts the empty one before it
        side = int(heads.shape[1] ** 0.5)
        maps = heads[-1].T.unflatten(1, (side, side))[None].cpu()
        total = total + F.interpolate(maps, picture.shape[:2], mode="bilinear")[0]
    return picture, total / len(seen)


def view_words(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """Where in the picture each word of a prompt looks."""
    pipeline, prompt = pipeline_for(flags, trained), flags.prompt or PROMPT
    if cut_off(pipeline, prompt):
        raise UsageError("--prompt has more words than the text encoder takes")
    ids = pipeline.tokenizer(prompt).input_ids
    picture, maps = attention_of_words(
        pipeline, prompt, trained.runtime, flags.seed or 0, flags.steps or STEPS
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


def view_strength(flags: ViewFlags, trained: Trained | None) -> Iterator[Picture]:
    """One picture, image to image, at strengths from 0.2 to 1."""
    pipeline, prompt = pipeline_for(flags, trained), flags.prompt or PROMPT
    runtime = trained.runtime
    image, name = picture_to_turn(flags)
    size = size_of(pipeline)
    say_cut([lost_by_cutting(image, *size)])
    made = [Tile(np.asarray(cut_to(image, *size)), name)]
    made.append(Tile(reconstruct(pipeline, [image], runtime, size)[0], "0: the autoencoder's"))
    for strength in STRENGTHS:
        painted = paint(
            pipeline, [prompt], [flags.seed or 0], runtime, steps=flags.steps or STEPS,
            images=[image], strength=strength,
        )  # fmt: skip
        made.append(Tile(painted.pictures[0], f"strength {strength:g}"))
    title = f'Image to image, "{shorten(prompt, 60)}": how much noise the picture gets'
    yield Picture("strength/strength.jpg", title, (Grid([made], side=1.5),))


def picture_to_turn(flags: ViewFlags) -> tuple[Image.Image, str]:
    """Return the picture that `--image` names, else a drawn one, and what to call it."""
    if flags.image is None:
        facts = Facts(0, "day", "clear", "sky", False)
        return draw_picture(facts, np.random.default_rng(0)), "drawn"
    path = image_path(flags.image, flags.save_dir / "images")
    return read_image(path), shorten(path.name, 18)


def pipeline_for(flags: ViewFlags, trained: Trained | None) -> StableDiffusionPipeline:
    """Return the pipeline of the run that is looked into.

    Raises:
        UsageError: there is none.
    """
    if trained is None:
        raise UsageError(f"--type {flags.type} needs weights: give --ckpt_path")
    return pipeline_of(trained)
