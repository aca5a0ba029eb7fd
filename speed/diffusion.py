"""Diffusion: the bare step on one resident batch, the project's loop, and a picture from words."""

import statistics
import time
from collections.abc import Hashable
from pathlib import Path

import torch

from lab.batches import load_batches
from lab.runtime import Runtime, place
from lab.settings import TrainSettings
from speed import Figures, Turn, ratio, table
from speed.training import bare_turns, own_turns
from tasks.diffusion import FIELD
from tasks.diffusion.data import LatentDataset
from tasks.diffusion.denoising import Denoising
from tasks.diffusion.networks import (
    SIZE,
    AutoencoderConfig,
    DiffusionConfig,
    LatentDiffusion,
    make_pipeline,
    make_scheduler,
)
from tasks.diffusion.painting import STEPS, paint, prepared
from tasks.diffusion.words import LENGTH, make_tokenizer

BATCHES = 16  # an epoch
SENTENCES = 5  # of each picture
PROMPT = "a roundabout sign at night"
PICTURES = 4  # a turn
BARE, OWN, PICTURE = "bare step", "train.py", "picture"


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the two ways to train, and the painting of pictures."""
    settings = TrainSettings(**FIELD.defaults)
    tokenizer = make_tokenizer([PROMPT])
    shape = network(len(tokenizer)).unet.config
    count, generator = BATCHES * settings.batch_size, torch.Generator().manual_seed(0)
    sides = (shape.in_channels, shape.sample_size, shape.sample_size)
    latents = torch.randn(count, *sides, generator=generator).to(runtime.device)
    ids = torch.randint(len(tokenizer), (count, SENTENCES, LENGTH), generator=generator)
    dataset = LatentDataset(None, latents, ids, vary=True)
    loader = load_batches(dataset, settings.batch_size, shuffle=True)
    task = Denoising(make_scheduler("v_prediction"))
    return {
        BARE: bare_turns(network(len(tokenizer)), loader, runtime, task, settings),
        OWN: own_turns(network(len(tokenizer)), loader, runtime, task, settings),
        PICTURE: picture_turns(network(len(tokenizer)), tokenizer, runtime),
    }


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of latents/s and their ratio, and seconds a picture."""
    rows = [
        [name, f"{statistics.median(figures[name]):,.1f}", ratio(figures, name, BARE)]
        for name in (OWN, BARE)
    ]
    seconds = statistics.median(figures[PICTURE])
    return (
        table(["diffusion, text encoder and UNet", "latents/s", "ratio"], rows)
        + f"\n\nA picture of {SIZE}x{SIZE}, {STEPS} steps, alone: {seconds:.3f} s"
    )


def network(tokens: int) -> LatentDiffusion:
    """Return the network under test; the same weights each time."""
    torch.manual_seed(0)
    return LatentDiffusion(DiffusionConfig(AutoencoderConfig(), tokens))


def picture_turns(model: LatentDiffusion, tokenizer: object, runtime: Runtime) -> Turn:
    """A picture at a time, with guidance, as diffuse.py paints it: seconds each."""
    pipeline = prepared(make_pipeline(place(model.eval(), runtime), tokenizer))

    def turn() -> float:
        began = time.perf_counter()
        for seed in range(PICTURES):
            paint(pipeline, [PROMPT], [seed], runtime)
        return (time.perf_counter() - began) / PICTURES

    paint(pipeline, [PROMPT], [0], runtime, steps=2)  # warm up
    return turn
