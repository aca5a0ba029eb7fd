"""Diffusion in small, for tests: an untrained network, sentences, a few captioned pictures."""

import numpy as np
import torch

from lab.runtime import Runtime
from tasks.diffusion.networks import AutoencoderConfig, DiffusionConfig, LatentDiffusion
from world import captions
from world.signs import NAMES

CPU = Runtime(torch.device("cpu"))
SIGNS = ("stop", "roundabout")
SENTENCES = ["a stop sign at night", "a roundabout sign, in front of trees", "120 km/h, blurred"]
TINY_AUTOENCODER = {"channels": (8, 8, 8, 8), "groups": 4, "latent_channels": 4}
TINY_UNET = {"channels": (16, 16), "heads": 2, "groups": 4, "text_width": 16, "text_heads": 2,
             "text_layers": 1}  # fmt: skip


def make_captioned(root, per_class):
    """Draw a few captioned pictures of two signs."""
    for number, (split, count) in enumerate(per_class.items()):
        drawn = []
        for name in SIGNS:
            label = NAMES.index(name)
            (root / split / captions.CLASSES[label]).mkdir(parents=True)
            chunk = captions.Chunk(root / split, 0, number, label, 0, count)
            drawn += captions.draw_chunk_of_captions(chunk)
        captions.write_sentences(root / split, drawn)
    return root


def tiny(tokens=100, **options):
    """Return an untrained network, the same each time."""
    torch.manual_seed(0)
    config = DiffusionConfig(AutoencoderConfig(**TINY_AUTOENCODER), tokens, **TINY_UNET | options)
    return LatentDiffusion(config).eval()


def captions_picture():
    """Return a picture of a sign by day, uint8 (H, W, 3)."""
    facts = captions.Facts(0, "day", "clear", "sky", False)
    return np.asarray(captions.draw_picture(facts, np.random.default_rng(0)))
