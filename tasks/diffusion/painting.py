"""Pictures from words, or from a picture and words, by any pipeline of Stable Diffusion's kind.

paint_prompt(DiffuseFlags(prompt="a stop sign"))      # what diffuse.py does
pipeline = load_pipeline("checkpoints/diffusion", runtime)
set_scheduler(pipeline, "dpm")
painted = paint(pipeline, ["a stop sign"] * 4, range(4), runtime)
painted = paint(pipeline, ["a stop sign"], [0], runtime, images=[photo], strength=0.75)
"""

import re
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from lab import checkpoint
from lab.console import LabError, command, progress, say
from lab.drawing import draw, publish
from lab.fetching import image_path
from lab.files import attempt
from lab.flags import as_name, as_words, asked_for, plain_name
from lab.images import read_image
from lab.pictures import Grid, Picture, Tile, sheet, shorten
from lab.runtime import Runtime, start
from tasks.diffusion import (
    AUTOENCODER_FOLDER,
    GUIDANCE,
    PUBLISHED_GUIDANCE,
    SCHEDULERS,
    STEPS,
    STRENGTH,
    TASK,
    DiffuseFlags,
)
from tasks.diffusion.networks import WORDS_FILE
from tasks.diffusion.words import unknown_words, words_of
from tasks.trained import another_run, task_in

SHOWN = 10  # pictures of a course
TOGETHER = 32  # pictures at a time of 64x64; of larger ones, so many that they have as many pixels
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
# Flags by which the same words are painted in another way.
WAYS = ("model", "image", "strength", "guidance_scale", "steps", "scheduler")
PIPELINE = "model_index.json"  # what makes a folder one of diffusers'


class Painted(NamedTuple):
    """What has been painted."""

    pictures: np.ndarray  # uint8 (N, H, W, 3)
    course: np.ndarray | None = None  # the first one's latents after each step, decoded, likewise


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
        wrong = f"there is no folder {name}, and no model of that name could be downloaded"
        wrong = f"{folder} cannot be loaded: {reason}" if folder else f"{wrong} ({reason})"
        raise LabError(wrong) from error
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
        own = task_in(path)
        if own not in (None, TASK.name):
            kind = f"{path} holds a run of {own}, which paints nothing"
            raise LabError(f"{kind}; {another_run(TASK.name, path, '--model')}")
        if own or any(map(checkpoint.epochs, path.glob(AUTOENCODER_FOLDER))):
            going_on = command("train.py", "--resume", path)
            raise LabError(f"{path} has no pipeline yet: its training has not ended; {going_on}")
        raise LabError(f"{path} holds no pipeline of diffusers: no {PIPELINE}")
    if path.parent.is_dir() or not HUB_NAME.fullmatch(name):  # who names a folder means one
        raise LabError(f"no folder {path}; {another_run(TASK.name, path, '--model')}")
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
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int],
    runtime: Runtime, *, steps: int = STEPS, guidance: float = GUIDANCE,
    images: Sequence[Image.Image] | None = None, strength: float = STRENGTH, course: bool = False,
) -> Painted:  # fmt: skip
    """Paint a picture for each prompt.

    Args:
        seeds: of each one's noise; whatever is painted beside it.
        steps: of denoising; image to image takes `strength` of them.
        guidance: how much more the words count than they do by themselves; 1 for no more.
        images: to begin with, one a prompt; cut to a square of the pipeline's size.
        strength: how much noise images get, from 0, for what the autoencoder makes of them, to 1.
        course: keep what the first one looked like after each step.
    """
    kind, taken = pipeline, steps
    if images is not None:
        taken = int(steps * strength)
        if taken == 0:
            return Painted(reconstruct(pipeline, images, runtime))
        parts = pipeline.components
        kind = prepared(StableDiffusionImg2ImgPipeline(**parts, requires_safety_checker=False))
    side = side_of(pipeline)
    together = max(1, TOGETHER * 64 * 64 // side**2)
    kept: list[Tensor] = []

    def after_step(_: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        bar.update()
        if course and first == 0:
            kept.append(values["latents"][:1].clone())
        return values

    pictures = []
    options: dict[str, Any] = {
        "num_inference_steps": steps, "guidance_scale": guidance, "output_type": "np",
        "callback_on_step_end": after_step,
    }  # fmt: skip
    with progress(total=taken * -(-len(prompts) // together), label="painting") as bar:
        for first in range(0, len(prompts), together):
            own = slice(first, first + together)
            if images is not None:
                squares = [cut_square(image, side) for image in images[own]]
                options |= {"image": squares, "strength": strength}
            generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds[own]]
            with precision_of(pipeline, runtime):
                painted = kind(list(prompts[own]), generator=generators, **options).images
            pictures.append(as_bytes(painted))
    shown = np.concatenate([decode(pipeline, z, runtime) for z in kept]) if kept else None
    return Painted(np.concatenate(pictures), shown)


def cut_square(image: Image.Image, side: int) -> Image.Image:
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
    pictures = []
    for image in images:
        pixels = pipeline.image_processor.preprocess(cut_square(image, side))
        with precision_of(pipeline, runtime):
            latents = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.mode()
        pictures.append(decode(pipeline, latents * vae.config.scaling_factor, runtime))
    return np.concatenate(pictures)


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


# ---------------------------------------------------------------- what diffuse.py does


def paint_prompt(flags: DiffuseFlags) -> None:
    """Paint, and save the pictures, a sheet of them and the course of the first one."""
    image = None
    if flags.image is not None:
        image = read_image(image_path(flags.image, flags.save_dir / "images"))
    runtime = start(flags.device)
    words = known_words(flags.model)
    pipeline = load_pipeline(flags.model, runtime)
    set_scheduler(pipeline, flags.scheduler)
    if words is not None and (unknown := unknown_words(flags.prompt, words)):
        all_of_it = len(unknown) == len(set(words_of(flags.prompt)))
        none = ", that is all of it: anything may be painted" if all_of_it else ""
        say(f"Never learned, so without a meaning: {', '.join(unknown)}{none}")
    if beyond := cut_off(pipeline, flags.prompt):
        say(f"The prompt is too long; left out is: {beyond}")
    guidance = flags.guidance_scale
    if guidance is None:
        guidance = PUBLISHED_GUIDANCE if words is None else GUIDANCE
    seeds = range(flags.seed, flags.seed + flags.num_images)
    painted = paint(
        pipeline, [flags.prompt] * len(seeds), seeds, runtime, steps=flags.steps,
        guidance=guidance, images=None if image is None else [image] * len(seeds),
        strength=STRENGTH if flags.strength is None else flags.strength, course=True,
    )  # fmt: skip
    # Files of other words, or painted in another way, are others'.
    name = plain_name(flags.prompt) or "no_words"
    folder = flags.save_dir / "diffuse" / (name + as_name(asked_for(flags, *WAYS)))
    for number, picture in zip(seeds, painted.pictures, strict=True):
        settings = asked_for(flags, "prompt", *WAYS) | {"seed": number}
        save(picture, folder / f"seed_{number}.png", flags.prompt, as_words(settings))
    which = as_name(asked_for(flags, "seed", "num_images"))
    for picture in show(flags.prompt, seeds, painted, image):
        path = folder / picture.path
        publish(draw(picture), path.with_stem(path.stem + which))


def save(picture: np.ndarray, path: Path, prompt: str, settings: str) -> None:
    """Save a picture, uint8 (H, W, 3), as a PNG that says how it was made, and say where.

    Raises:
        LabError: it cannot be written.
    """
    text = PngInfo()
    text.add_itxt("prompt", prompt)
    text.add_itxt("settings", settings)
    with attempt(f"write {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path, pnginfo=text)
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
        pictures = [np.asarray(cut_square(image, painted.pictures.shape[1])), *pictures]
        captions = ["the picture given", *captions]
    columns = 4 + (image is not None)
    shown = [Picture("pictures.jpg", title, (sheet(pictures, captions, columns, side=1.8),))]
    if painted.course is not None:
        count = len(painted.course)
        steps = np.unique(np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int))
        tiles = [Tile(painted.course[k], f"step {k + 1}") for k in steps]
        course = f"{title}, step by step: from noise to seed {seeds[0]}"
        shown.append(Picture("course.jpg", course, (Grid([tiles], side=1.4),)))
    return shown
