"""Pictures from words, or from a picture and words, by any pipeline of Stable Diffusion's kind.

pipeline = load_pipeline("checkpoints/default", runtime)
set_scheduler(pipeline, "dpm")
painted = paint(pipeline, ["a stop sign"] * 4, range(4), runtime)
painted = paint(pipeline, ["a stop sign"], [0], runtime, images=[photo], strength=0.75)
"""

import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image, ImageOps
from torch import Tensor

from lab import checkpoint
from lab.console import LabError, command, progress, say
from lab.pictures import Grid, Picture, Tile, sheet, shorten
from lab.runtime import Runtime
from tasks.diffusion.networks import WORDS_FILE

STEPS, GUIDANCE, STRENGTH = 25, 4.5, 0.75
PUBLISHED_GUIDANCE = 7.5  # of Stable Diffusion: its words are many, and mean less each
SHOWN = 10  # pictures of a course
SCHEDULERS = {
    "ddim": "DDIMScheduler",  # Song et al. 2021
    "dpm": "DPMSolverMultistepScheduler",  # Lu et al. 2022
    "euler": "EulerDiscreteScheduler",  # Karras et al. 2022
    "ddpm": "DDPMScheduler",  # Ho et al. 2020: with noise in every step
}
TOGETHER = 32  # pictures at a time of 64x64; of larger ones, so many that they have as many pixels
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
PIPELINE = "model_index.json"  # what makes a folder one of diffusers'


class Painted(NamedTuple):
    """What has been painted.

    Attributes:
        pictures: uint8 (N, H, W, 3).
        course: the first picture's latents after each step, decoded, uint8 (S, H, W, 3); none
            unless asked for.
    """

    pictures: np.ndarray
    course: np.ndarray | None = None


# ---------------------------------------------------------------- pipelines


def load_pipeline(name: str, runtime: Runtime) -> StableDiffusionPipeline:
    """Load a pipeline onto the device, in half precision on a GPU.

    Args:
        name: the folder of a run or of a pipeline, or a model's name on the Hugging Face Hub.

    Raises:
        LabError: there is none, or it cannot be downloaded.
    """
    folder = find_pipeline(name)
    dtype = torch.float16 if runtime.device.type == "cuda" else torch.float32
    try:
        pipeline = StableDiffusionPipeline.from_pretrained(folder or name, dtype=dtype)
    except Exception as error:  # the libraries raise nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if folder is not None:
            raise LabError(f"{folder} cannot be loaded: {reason}") from error
        raise LabError(
            f"there is no folder {name}, and no model of that name could be downloaded ({reason})"
        ) from error
    return prepared(pipeline.to(runtime.device))


def find_pipeline(name: str) -> Path | None:
    """Return the folder of a pipeline; None for a name that may be one of the Hub's.

    Raises:
        LabError: the name is that of a folder without a pipeline, or can be nobody's.
    """
    path = Path(name)
    if path.is_dir():
        for folder in (path, path / "pipeline"):
            if (folder / PIPELINE).is_file():
                return folder
        unfinished = checkpoint.epochs(path) or any(map(checkpoint.epochs, path.iterdir()))
        if unfinished:
            going_on = command("train.py", "--resume", path)
            raise LabError(f"{path} has no pipeline yet: its training has not ended; {going_on}")
        raise LabError(f"{path} holds no pipeline of diffusers: no {PIPELINE}")
    if path.parent.is_dir() or not HUB_NAME.fullmatch(name):  # who names a folder means one
        training = command("train.py", "--task", "diffusion", "--ckpt_path", path)
        raise LabError(f"no folder {path}; train one: {training}")
    return None


def prepared(pipeline: Any) -> Any:
    """Return a pipeline that shows no progress of its own."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def known_words(name: str) -> list[str] | None:
    """Return the words that a pipeline of ours has learned; None for others, which know most."""
    folder = find_pipeline(name)
    path = folder and folder / WORDS_FILE
    return path.read_text("utf-8").split() if path and path.is_file() else None


def set_scheduler(pipeline: StableDiffusionPipeline, name: str) -> None:
    """Have a pipeline sample by another method; the noise it was trained with stays."""
    kind = getattr(diffusers, SCHEDULERS[name])
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config)


def side_of(pipeline: StableDiffusionPipeline) -> int:
    """Return the pixels a side that a pipeline's pictures have."""
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor


def cut_off(pipeline: StableDiffusionPipeline, prompt: str) -> str:
    """Return what of a prompt is beyond the tokens that the text encoder takes; mostly nothing."""
    tokenizer = pipeline.tokenizer
    ids = tokenizer(prompt).input_ids
    return tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1]).strip()


# ---------------------------------------------------------------- painting


@torch.inference_mode()
def paint(
    pipeline: StableDiffusionPipeline,
    prompts: Sequence[str],
    seeds: Sequence[int],
    runtime: Runtime,
    *,
    steps: int = STEPS,
    guidance: float = GUIDANCE,
    images: Sequence[Image.Image] | None = None,
    strength: float = STRENGTH,
    course: bool = False,
    watch: Callable[[int], None] | None = None,
) -> Painted:
    """Paint a picture for each prompt.

    Args:
        seeds: of each one's noise; whatever is painted beside it.
        steps: of denoising; image to image takes `strength` of them.
        guidance: how much more the words count than they do by themselves; 1 for no more.
        images: to begin with, one a prompt; cut to a square of the pipeline's size.
        strength: how much noise images get, from 0, for what the autoencoder makes of them, to 1.
        course: keep what the first one looked like after each step.
        watch: told the number of each step, of each batch, after it.
    """
    kind = pipeline
    if images is not None:
        if int(steps * strength) == 0:
            return Painted(reconstruct(pipeline, images, runtime))
        kind = prepared(
            StableDiffusionImg2ImgPipeline(**pipeline.components, requires_safety_checker=False)
        )
    side = side_of(pipeline)
    together = max(1, TOGETHER * 64 * 64 // side**2)
    kept: list[Tensor] = []

    def after_step(_: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        bar.update()
        if watch is not None:
            watch(step)
        if course and first == 0:
            kept.append(values["latents"][:1].clone())
        return values

    pictures = []
    taken = steps if images is None else int(steps * strength)
    with progress(total=taken * -(-len(prompts) // together), label="painting") as bar:
        for first in range(0, len(prompts), together):
            own = slice(first, first + together)
            options: dict[str, Any] = {}
            if images is not None:
                fitted = [fit(image, side) for image in images[own]]
                options = {"image": fitted, "strength": strength}
            generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[own]]
            with precision_of(pipeline, runtime):
                painted = kind(
                    list(prompts[own]), num_inference_steps=steps, guidance_scale=guidance,
                    generator=generators, output_type="np", callback_on_step_end=after_step,
                    **options,
                ).images  # fmt: skip
            pictures.append(as_bytes(painted))
    shown = np.concatenate([decode(pipeline, z, runtime) for z in kept]) if kept else None
    return Painted(np.concatenate(pictures), shown)


def fit(image: Image.Image, side: int) -> Image.Image:
    """Return the middle of an image, `side` pixels a side."""
    return ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)


def precision_of(pipeline: StableDiffusionPipeline, runtime: Runtime) -> Any:
    """Return the context that a pipeline computes in: half precision has need of none."""
    return runtime.autocast() if pipeline.unet.dtype == torch.float32 else nullcontext()


@torch.inference_mode()
def reconstruct(
    pipeline: StableDiffusionPipeline, images: Sequence[Image.Image], runtime: Runtime
) -> np.ndarray:
    """Return what the autoencoder makes of images, uint8 (N, H, W, 3)."""
    side, vae = side_of(pipeline), pipeline.vae
    found = []
    for image in images:
        pixels = pipeline.image_processor.preprocess(fit(image, side))
        with precision_of(pipeline, runtime):
            latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
        found.append(decode(pipeline, latents * vae.config.scaling_factor, runtime))
    return np.concatenate(found)


@torch.inference_mode()
def decode(pipeline: StableDiffusionPipeline, latents: Tensor, runtime: Runtime) -> np.ndarray:
    """Return scaled latents (N, C, h, w) as pictures, uint8 (N, H, W, 3)."""
    vae = pipeline.vae
    with precision_of(pipeline, runtime):
        images = vae.decode((latents / vae.config.scaling_factor).to(vae.dtype)).sample
    return as_bytes(pipeline.image_processor.postprocess(images, output_type="np"))


def as_bytes(pictures: np.ndarray) -> np.ndarray:
    """Return pictures in [0, 1] as uint8."""
    return (pictures * 255).round().astype(np.uint8)


# ---------------------------------------------------------------- showing


def save(picture: np.ndarray, path: Path) -> None:
    """Save a picture, uint8 (H, W, 3), as a file, and say where.

    Raises:
        LabError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    except OSError as error:
        raise LabError(f"cannot write {path}: {error.strerror or error}") from error
    say(f"Saved {path}")


def show(
    prompt: str, seeds: Sequence[int], painted: Painted, image: Image.Image | None = None
) -> list[Picture]:
    """Return a sheet of what was painted for a prompt, and the course of the first one.

    Args:
        image: what it began with.
    """
    title = f'"{shorten(prompt, 80)}"' if prompt else "no words"
    pictures, captions = list(painted.pictures), [f"seed {seed}" for seed in seeds]
    if image is not None:
        pictures = [np.asarray(fit(image, painted.pictures.shape[1])), *pictures]
        captions = ["the picture given", *captions]
    shown = [
        Picture(
            "pictures.jpg", title, (sheet(pictures, captions, 4 + (image is not None), side=1.8),)
        )
    ]
    if painted.course is not None:
        count = len(painted.course)
        steps = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int))
        tiles = [Tile(painted.course[k], f"step {k + 1}") for k in steps]
        course = f"{title}, step by step: from noise to seed {seeds[0]}"
        shown.append(Picture("course.jpg", course, (Grid([tiles], side=1.4),)))
    return shown
