"""The three networks of latent diffusion (Rombach et al. 2022), from diffusers and transformers.

    network = LatentDiffusion(DiffusionConfig(AutoencoderConfig(), tokens=260))
    prediction = network(noisy, timesteps, ids)     # (N, C, h, w): the noise, or the velocity
    pipeline = make_pipeline(network, tokenizer)    # StableDiffusionPipeline

All sizes are here. Stable Diffusion 1.5's are beside them for comparison, as its model card's
configuration has them.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lab.files import attempt
from lab.folders import unfinished
from lab.registry import Design, build
from lab.weights import load_weights
from tasks.diffusion import FACTOR, PREDICTIONS
from tasks.diffusion.words import LENGTH, restore_tokenizer, tokenizer_state
from world.captions import PIXELS

for library in (diffusers, transformers):  # what is to be said, the scripts say
    library.utils.logging.set_verbosity_error()
    library.utils.logging.disable_progress_bar()

WORDS_FILE = "words.txt"  # in a pipeline's folder: the words that it has learned

# Matrix products and softmax, one after the other: of as few positions as here, the backward pass
# of the fused attention that the libraries take by themselves is several times slower on a CPU.
PLAIN_ATTENTION = "eager"
# What diffusers' UNet2DConditionModel is given for Stable Diffusion 1.5; the rest are its defaults.
STABLE_DIFFUSION = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}

TIME_WIDTH = 192  # see DiffusionConfig; four times the channels are a fifth of all weights
# A variance of latents below which there is more noise than picture; some ten times what the
# autoencoder's Gaussians have.
FLOOR = 0.05
LOG_NOTHING = -30.0  # the smallest logarithm of a variance that diffusers knows

# Stable Diffusion's noise, but for its end: there nothing is left of the picture, so that a
# picture may be dark or bright as a whole, and sampling begins where training ended (Lin et al.
# 2024, "Common diffusion noise schedules and sample steps are flawed").
NOISE = {
    "num_train_timesteps": 1000, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "beta_end": 0.012, "timestep_spacing": "trailing", "steps_offset": 1, "clip_sample": False,
}  # fmt: skip


# ---------------------------------------------------------------- sizes


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the autoencoder.

    Attributes:
        factor: of FACTORS.
        latent_channels: of a place of the latents. With 16 at a factor of 8, a picture becomes as
            many numbers as with 4 at a factor of 4, and the UNet has a quarter of the places.
        channels: of the maps at the pixels' own scale, at half of it, ...; those of the factor.
        layers: residual blocks at each scale.
        groups: of group norm; divides all channels. On a CPU, those of fewer than 16 channels
            take up to ten times as long.
    """

    factor: int = FACTOR
    latent_channels: int = 16
    channels: tuple[int, ...] = (16, 16, 32, 64)
    layers: int = 1
    groups: int = 1


@dataclass(frozen=True)
class DiffusionConfig:
    """Sizes of text encoder and UNet, with the autoencoder's.

    Attributes:
        autoencoder: of the latents; as a dict in checkpoints.
        tokens: that the tokenizer knows.
        scaling_factor: brings the latents' standard deviation to 1.
        prediction: what the UNet predicts, of PREDICTIONS.
        channels: of the UNet's maps at each scale, the latents' own first; multiples of `groups`.
        layers: residual blocks, each with its attention, at each scale.
        heads: of attention. (diffusers calls their number `attention_head_dim`, by an old mistake.)
        groups: of group norm; see AutoencoderConfig.
        text_width, text_layers, text_heads: of the text encoder.
        time_width: numbers that time and prompt are told to residual blocks in; None: four times
            the first of `channels`.
        pooled: whether each residual block is told what the prompt says as a whole, with the time,
            and scales its maps by it; checkpoints that do not say so hold none of it.
    """

    autoencoder: AutoencoderConfig
    tokens: int
    scaling_factor: float = 1.0
    prediction: str = PREDICTIONS[0]
    channels: tuple[int, ...] = (96, 96)
    layers: int = 1
    heads: int = 4
    groups: int = 2
    text_width: int = 96
    text_layers: int = 1
    text_heads: int = 4
    time_width: int | None = None
    pooled: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.autoencoder, Mapping):
            object.__setattr__(self, "autoencoder", AutoencoderConfig(**self.autoencoder))


# ---------------------------------------------------------------- networks


class Autoencoder(nn.Module):
    """Pictures to latents and back, with a Gaussian about each latent while it trains."""

    def __init__(self, config: AutoencoderConfig):
        super().__init__()
        self.config, self.vae = config, build_vae(config)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return images (N, 3, H, W) as decoded, with mean and log variance of their latents.

        Decoded are latents drawn from the Gaussian in training, its mean in evaluation.
        """
        posterior = self.vae.encode(images).latent_dist
        latents = posterior.sample() if self.training else posterior.mode()
        return self.vae.decode(latents).sample, posterior.mean, posterior.logvar


class LatentDiffusion(nn.Module):
    """A text encoder and a UNet, trained together on the latents of an autoencoder, which is not.

    Attributes:
        vae, text_encoder, unet: as in diffusers' StableDiffusionPipeline.
    """

    def __init__(self, config: DiffusionConfig):
        super().__init__()
        self.config = config
        self.vae = build_vae(config.autoencoder).requires_grad_(False)
        self.vae.register_to_config(scaling_factor=config.scaling_factor)
        self.text_encoder = build_text_encoder(config)
        self.unet = build_unet(config)

    def forward(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        """Return what is predicted of noisy latents, (N, C, h, w).

        Args:
            timesteps: int64 (N,).
            ids: tokens of the prompts, int64 (N, LENGTH).
        """
        return self.unet(noisy, timesteps, self.text_encoder(ids).last_hidden_state).sample


class Gated(GEGLU):
    """The library's gates, as a copy: at halves of rows, GELU takes a CPU several times as long."""

    def gelu(self, gate: Tensor) -> Tensor:
        return super().gelu(gate.contiguous())


class MeanPicture(nn.Module):
    """What pictures that words fit look like in the mean: a linear layer on the prompt as a whole.

    Learned with text encoder and pooling, which it shares with a network that is `pooled`.
    """

    def __init__(self, network: LatentDiffusion):
        super().__init__()
        self.text_encoder, self.pooling = network.text_encoder, network.unet.add_embedding
        side, channels = network.unet.config.sample_size, network.unet.config.in_channels
        self.shape = channels, side, side
        self.head = nn.Linear(self.pooling.proj.out_features, channels * side * side)

    def forward(self, ids: Tensor) -> Tensor:
        """Return latents (N, C, h, w) of tokens, int64 (N, LENGTH)."""
        pooled = self.pooling(self.text_encoder(ids).last_hidden_state)
        return self.head(pooled).unflatten(1, self.shape)


NETWORKS = {
    "autoencoder": Design(AutoencoderConfig, Autoencoder),
    "latent_diffusion": Design(DiffusionConfig, LatentDiffusion),
}


def build_vae(config: AutoencoderConfig) -> AutoencoderKL:
    """Build an untrained autoencoder."""
    scales = config.factor.bit_length()  # a factor of 2 ** k halves k times
    return AutoencoderKL(
        block_out_channels=config.channels[:scales], layers_per_block=config.layers,
        down_block_types=("DownEncoderBlock2D",) * scales,
        up_block_types=("UpDecoderBlock2D",) * scales,
        latent_channels=config.latent_channels, norm_num_groups=config.groups,
        mid_block_add_attention=False,  # all of a picture is near all of it here
        sample_size=PIXELS, force_upcast=False,
    )  # fmt: skip


def build_text_encoder(config: DiffusionConfig) -> CLIPTextModel:
    """Build an untrained text encoder; start, end and padding are the tokens 0, 1 and 1."""
    width = config.text_width
    encoder = CLIPTextModel(CLIPTextConfig(
        vocab_size=config.tokens, max_position_embeddings=LENGTH, hidden_size=width,
        intermediate_size=4 * width, projection_dim=width, num_hidden_layers=config.text_layers,
        num_attention_heads=config.text_heads, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    ))  # fmt: skip
    encoder.set_attn_implementation(PLAIN_ATTENTION)
    return encoder


def build_unet(config: DiffusionConfig) -> UNet2DConditionModel:
    """Build an untrained UNet, with attention to the words at every scale.

    One that is told the prompt as a whole attends at the finest only on the way down: on the way
    up, that took a quarter of a step.
    """
    scales, latents = len(config.channels), config.autoencoder
    last = "UpBlock2D" if config.pooled else "CrossAttnUpBlock2D"
    unet = UNet2DConditionModel(
        sample_size=PIXELS // latents.factor, in_channels=latents.latent_channels,
        out_channels=latents.latent_channels, block_out_channels=config.channels,
        down_block_types=("CrossAttnDownBlock2D",) * scales,
        up_block_types=(*("CrossAttnUpBlock2D",) * (scales - 1), last),
        layers_per_block=config.layers, cross_attention_dim=config.text_width,
        attention_head_dim=config.heads, norm_num_groups=config.groups,
        addition_embed_type="text" if config.pooled else None,
        addition_embed_type_num_heads=config.text_heads,
        time_embedding_dim=config.time_width,
        resnet_time_scale_shift="scale_shift" if config.pooled else "default",
    )  # fmt: skip
    unet.set_attn_processor(AttnProcessor())
    for module in unet.modules():
        if isinstance(module, GEGLU):
            module.__class__ = Gated
    return unet


def stable_diffusion_unet() -> UNet2DConditionModel:
    """Build the UNet of Stable Diffusion 1.5 without weights, on the meta device."""
    with torch.device("meta"):
        return UNet2DConditionModel(**STABLE_DIFFUSION)


def make_scheduler(prediction: str) -> DDIMScheduler:
    """Return the noise of training, and the sampler that a pipeline comes with."""
    # From nothing but noise, the noise says nothing of the picture: that needs the velocity.
    end = {"rescale_betas_zero_snr": prediction == "v_prediction"}
    return DDIMScheduler(**NOISE, **end, prediction_type=prediction)


@torch.no_grad()
def decorrelate(vae: AutoencoderKL, latents: Tensor) -> None:
    """Change the basis of an autoencoder's latents; pictures are decoded as before.

    In the new one channels are uncorrelated, of mean 0, and of a variance of v / (v + FLOOR) where
    the direction had v. As an autoencoder leaves them, most variance is that of a place's colour,
    a hundred times that of the strokes on a sign: noise would drown these until the last steps,
    and the loss hardly count them. Two 1x1 convolutions, those next to the latents, take it all in;
    the Gaussians about latents, which served training, shrink to nothing.

    Args:
        latents: of pictures, (N, C, h, w), in the old basis.
    """
    quant, post = vae.quant_conv, vae.post_quant_conv
    places = latents.movedim(1, -1).flatten(0, -2).cpu().double()  # not every device knows it
    mean = places.mean(0)
    variances, directions = torch.linalg.eigh(places.T.cov())
    deviations = (variances.clamp(min=0) + FLOOR).sqrt()
    into, back = (directions / deviations).T, directions * deviations
    count = len(mean)
    weight, bias = quant.weight[:count, :, 0, 0].cpu().double(), quant.bias[:count].cpu().double()
    quant.weight[:count, :, 0, 0] = (into @ weight).to(quant.weight)
    quant.bias[:count] = (into @ (bias - mean)).to(quant.bias)
    quant.weight[count:], quant.bias[count:] = 0, LOG_NOTHING
    weight = post.weight[:, :, 0, 0].cpu().double()
    post.bias.copy_(post.bias.cpu() + weight @ mean)
    post.weight[:, :, 0, 0] = (weight @ back).to(post.weight)


# ---------------------------------------------------------------- pipelines


def make_pipeline(network: LatentDiffusion, tokenizer: CLIPTokenizer) -> StableDiffusionPipeline:
    """Return diffusers' pipeline of a network; it shares the weights."""
    return StableDiffusionPipeline(
        network.vae, network.text_encoder, tokenizer, network.unet,
        make_scheduler(network.config.prediction), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def packed(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return what a checkpoint holds whose weights are those of a pipeline in its folder.

    Args:
        state: of a run, the weights in 32 bits or in 16.
        folder: takes the pipeline.
    """
    network = build(NETWORKS, state["network"], state["configs"])
    load_weights(network, state["model_state"])
    network.to(state["model_state"]["unet.conv_in.weight"].dtype)
    pipeline = make_pipeline(network, restore_tokenizer(state["tokenizer"]))
    save_pipeline(pipeline, state["words"], folder)
    # Unless told otherwise diffusers loads in 32 bits, transformers as its file says.
    config = folder / "text_encoder" / "config.json"
    config.write_bytes(config.read_bytes().replace(b"float16", b"float32"))
    files = {
        f"{name}.": file.relative_to(folder).as_posix()
        for name in ("vae", "text_encoder", "unet")
        for file in (folder / name).glob("*.safetensors")
    }
    return state | {"model_state": {}, "weights_files": files}


def save_tokens(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write a tokenizer's words and merges as transformers 4 reads them; 5 writes others."""
    state = tokenizer_state(tokenizer)
    vocabulary = json.dumps(state["vocab"], ensure_ascii=False)
    merges = "".join(f"{' '.join(pair)}\n" for pair in state["merges"])
    (folder / "vocab.json").write_text(vocabulary, "utf-8")
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", "utf-8")


def save_pipeline(pipeline: StableDiffusionPipeline, words: list[str], folder: Path) -> None:
    """Write a pipeline in diffusers' format, whole or not at all, in place of an earlier one.

    Args:
        words: those that it has learned.

    Raises:
        LabError: the folder cannot be written.
    """
    with attempt(f"write {folder}"), unfinished(folder) as making:
        pipeline.save_pretrained(making)
        save_tokens(pipeline.tokenizer, making / "tokenizer")
        (making / WORDS_FILE).write_text("".join(f"{word}\n" for word in words), "utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        making.rename(folder)
