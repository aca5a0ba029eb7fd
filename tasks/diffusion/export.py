"""The networks of diffusion as export.py writes them; to paint, each step calls the UNet.

states = text_encoder(ids)                          # (N, tokens, width)
prediction = unet(latents, timesteps, states)       # of noise or velocity, by `prediction`
pictures = decoder(latents)                         # uint8 (N, H, W, 3)
"""

import torch
from torch import Tensor, nn

from tasks.diffusion.networks import LatentDiffusion
from tasks.diffusion.words import LENGTH
from tasks.exporting import Exported, as_images, as_pictures
from tasks.trained import Trained
from world.captions import PIXELS

BATCH = {0: "N"}


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
