"""The networks of diffusion as export.py writes them; to paint, each step calls the UNet.

states = text_encoder(ids)                          # (N, tokens, width)
prediction = unet(latents, timesteps, states)       # of noise or velocity, by `prediction`
pictures = decoder(latents)                         # uint8 (N, H, W, 3)
"""

import copy
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.console import LabError
from tasks.diffusion import GUIDANCE, STEPS
from tasks.diffusion.networks import LatentDiffusion, make_scheduler
from tasks.diffusion.views import PROMPT, Watching
from tasks.diffusion.words import END_OF_WORD, LENGTH
from tasks.exporting import Exported, as_images, as_pictures
from tasks.showing import Shown
from tasks.trained import Trained
from world.captions import PIXELS

BATCH = {0: "N"}
OTHER = PROMPT.replace("night", "noon")  # of which one word is another


class TextEncoder(nn.Module):
    """What is known of tokens, int64 (N, LENGTH), in the end: (N, LENGTH, width)."""

    def __init__(self, network: LatentDiffusion):
        super().__init__()
        self.text_encoder = network.text_encoder

    def forward(self, ids: Tensor) -> Tensor:
        return self.text_encoder(ids).last_hidden_state


class UNet(nn.Module):
    """A step: scaled latents (N, C, h, w), int64 (N,), (N, LENGTH, width) to (N, C, h, w)."""

    def __init__(self, network: LatentDiffusion):
        super().__init__()
        self.unet = network.unet

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        return self.unet(latents, timesteps, states).sample


class WatchedUNet(nn.Module):
    """A step as of `UNet`, and how much each place attends to each token, (N, LENGTH, h, w)."""

    def __init__(self, network: LatentDiffusion):
        super().__init__()
        self.unet = copy.deepcopy(network.unet)
        plain = self.unet.attn_processors
        watching = {name: Watching([]) for name in plain if ".attn2." in name}
        self.unet.set_attn_processor(plain | watching)
        self.watching = list(watching.values())

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        seen: list[Tensor] = []  # of this pass: tracing would take another for one that is kept
        for own in self.watching:
            own.seen = seen
        prediction, total = self.unet(latents, timesteps, states).sample, 0
        for heads in seen:  # (N, places, tokens)
            side = int(heads.shape[1] ** 0.5)
            maps = heads.transpose(1, 2).unflatten(2, (side, side))
            total = total + F.interpolate(maps, latents.shape[2:], mode="bilinear")
        return prediction, total / len(seen)


class Decoder(nn.Module):
    """Scaled latents (N, C, h, w) to pictures, uint8 (N, H, W, 3)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.vae = network.vae

    def forward(self, latents: Tensor) -> Tensor:
        return as_pictures(self.vae.decode(latents / self.vae.config.scaling_factor).sample)


class Encoder(nn.Module):
    """Pictures, uint8 (N, H, W, 3), H and W multiples of the factor, to scaled latents."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.vae = network.vae

    def forward(self, pictures: Tensor) -> Tensor:
        latents = self.vae.encode(as_images(pictures)).latent_dist.mode()
        return latents * self.vae.config.scaling_factor


def exported(trained: Trained) -> list[Exported]:
    network = trained.network
    factor = network.vae.config.block_out_channels
    side, channels = PIXELS // 2 ** (len(factor) - 1), network.vae.config.latent_channels

    def latents_of(pictures: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(len(pictures))
        return torch.randn(len(pictures), channels, side, side, generator=generator)

    def squares(pictures: Tensor) -> tuple[Tensor]:
        cut = pictures[:, :PIXELS, :PIXELS]
        whole = pictures.new_zeros(len(cut), PIXELS, PIXELS, 3)
        whole[:, : cut.shape[1], : cut.shape[2]] = cut
        return (whole,)

    decoder = Exported(
        "decoder",
        Decoder(network),
        {"latents": BATCH},
        ("pictures",),
        trial=lambda p: (latents_of(p),),
    )
    encoder = Exported(
        "encoder", Encoder(network), {"pictures": BATCH}, ("latents",), trial=squares
    )
    if not isinstance(network, LatentDiffusion):
        return [encoder, decoder]

    def ids_of(pictures: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(len(pictures))
        ids = torch.randint(2, network.config.tokens, (len(pictures), LENGTH), generator=generator)
        ids[:, 0], ids[:, LENGTH // 2 :] = 0, 1  # its start, and what it ends and is filled with
        return ids

    def noisy(pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states = network.text_encoder(ids_of(pictures)).last_hidden_state
        return latents_of(pictures), torch.linspace(0, 999, len(pictures)).long(), states

    return [
        Exported("text_encoder", TextEncoder(network), {"ids": BATCH}, ("states",),
                 trial=lambda pictures: (ids_of(pictures),)),
        Exported("unet", UNet(network), dict.fromkeys(("latents", "timesteps", "states"), BATCH),
                 ("prediction",), trial=noisy),
        encoder,
        decoder,
    ]  # fmt: skip


def shown(trained: Trained) -> Shown:
    network, state = trained.network, trained.state
    if not isinstance(network, LatentDiffusion):
        raise LabError(
            f"{trained.path} is an autoencoder, which paints nothing: name the UNet's run"
        )
    parts = {one.name: one for one in exported(trained)}
    unet = parts["unet"]
    watched = replace(
        unet, name="step", network=WatchedUNet(network), outputs=("prediction", "attention")
    )
    latents = network.unet.config.in_channels, network.unet.config.sample_size
    scheduler = make_scheduler(network.config.prediction)
    noise = {"alphas": scheduler.alphas_cumprod.tolist(), "prediction": network.config.prediction}
    vocabulary = state["tokenizer"]["vocab"]
    tokenizer = {
        "vocab": vocabulary, "merges": state["tokenizer"]["merges"], "start": 0, "end": 1,
        "names": {own: piece.removesuffix(END_OF_WORD) for piece, own in vocabulary.items()},
    }  # fmt: skip
    facts = {
        "tokenizer": tokenizer, "length": LENGTH, "words": state["words"], "latents": latents,
        "scheduler": noise, "guidance": GUIDANCE, "steps": STEPS, "prompt": PROMPT, "other": OTHER,
    }  # fmt: skip
    return Shown([parts["text_encoder"], watched, parts["decoder"]], facts=facts)
