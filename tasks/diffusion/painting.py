"""Pictures from words, or from a picture and words, by any pipeline of Stable Diffusion's kind.

paint_prompt(DiffuseFlags(prompt="a stop sign"))      # what diffuse.py does
pipeline = load_pipeline("checkpoints/diffusion", runtime)
set_scheduler(pipeline, "dpm")
painted = paint(pipeline, ["a stop sign"] * 4, range(4), runtime)
painted = paint(pipeline, ["a stop sign"], [0], runtime, images=[photo], strength=0.75)
"""

import copy
import re
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
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
from lab.console import LabError, UsageError, command, progress, say
from lab.drawing import draw, publish
from lab.fetching import image_path
from lab.files import attempt, read_lines
from lab.flags import as_name, as_words, asked_for, plain_name
from lab.images import read_image
from lab.pictures import Grid, Picture, Tile, sheet, shorten
from lab.runtime import Runtime, start
from tasks import folder_of
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
from tasks.shipped import shipped_with
from tasks.trained import another_run, task_in

SHOWN = 10  # pictures of a course
TOGETHER = 32  # pictures at a time of 64x64; of larger ones, so many that they have as many pixels
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
MOST_PIXELS = 2048 * 2048  # of a picture: attention takes the square of it
LITTLE = 0.005  # of a picture's area
LONGEST = 2  # sides of a picture to begin with: the longer over the shorter at the most
# Flags by which the same words are painted in another way.
WAYS = (
    "model", "image", "strength", "guidance_scale", "negative_prompt", "height", "width", "steps",
    "scheduler",
)  # fmt: skip
PIPELINE = "model_index.json"  # what makes a folder one of diffusers'


class Painted(NamedTuple):
    """What has been painted."""

    pictures: np.ndarray  # uint8 (N, H, W, 3)
    course: np.ndarray | None = None  # the first one's latents after some steps, decoded, likewise
    steps: Sequence[int] = ()  # those steps
    blackened: Sequence[int] = ()  # pictures that the model's safety checker has made black


class Guided:
    """A pipeline whose guidance is what its formula says below 1, where the library has none."""

    @property
    def do_classifier_free_guidance(self) -> bool:
        return self._guidance_scale != 1 and self.unet.config.time_cond_proj_dim is None


class FromWords(Guided, StableDiffusionPipeline):
    """Paints from words."""


class FromPicture(Guided, StableDiffusionImg2ImgPipeline):
    """Paints from a picture and words."""


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
        with warnings.catch_warnings(action="ignore"):  # what they mean to change one day
            pipeline = StableDiffusionPipeline.from_pretrained(folder or name, dtype=dtype)
    except Exception as error:  # the libraries raise nearly anything
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        wrong = f"there is no folder {name}, and no model of that name could be downloaded"
        wrong = f"{folder} cannot be loaded: {reason}" if folder else f"{wrong} ({reason})"
        raise LabError(wrong) from error
    return prepared(pipeline.to(runtime.device))


def own_model() -> str:
    """Return what paints where no model is named: our own run, or what comes with the project.

    Raises:
        LabError: there is neither.
    """
    folder = folder_of(TASK.name)
    own = task_in(folder) or any(map(checkpoint.epochs, folder.glob(AUTOENCODER_FOLDER)))
    if own or (folder / PIPELINE).is_file() or not (shipped := shipped_with(TASK.name)):
        return str(folder)
    say(f"No run in {folder}: {shipped[0]}, which comes with the project, paints")
    return str(shipped[0])


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
    return read_lines(path) if path and path.is_file() else None


def set_scheduler(pipeline: StableDiffusionPipeline, name: str) -> None:
    """Have a pipeline sample by another method; the noise it was trained with stays.

    Latents are no pixels: they are not clipped to [-1, 1], as some do by themselves.
    """
    kind = getattr(diffusers, SCHEDULERS[name])
    pipeline.scheduler = kind.from_config(pipeline.scheduler.config, clip_sample=False)


def check_steps(pipeline: StableDiffusionPipeline, steps: int) -> None:
    """Raise a LabError where a pipeline's scheduler cannot go in so many steps."""
    scheduler = copy.deepcopy(pipeline.scheduler)
    most = scheduler.config.num_train_timesteps
    if fits := steps <= most:
        scheduler.set_timesteps(steps)  # some count from 1: their last would be beyond the noise
        fits = float(max(scheduler.timesteps)) < most
    if not fits:
        kind = type(scheduler).__name__
        raise LabError(f"{kind} cannot go in {steps} steps, of {most} of training: give fewer")


def size_of(pipeline: StableDiffusionPipeline) -> tuple[int, int]:
    """Return the height and width of a pipeline's pictures, in pixels."""
    side = pipeline.unet.config.sample_size
    height, width = (side, side) if isinstance(side, int) else side
    return height * pipeline.vae_scale_factor, width * pipeline.vae_scale_factor


def cut_off(pipeline: StableDiffusionPipeline, prompt: str) -> str:
    """Return what of a prompt is beyond the tokens that the text encoder takes; mostly nothing."""
    tokenizer = pipeline.tokenizer
    ids = tokenizer(prompt).input_ids
    return tokenizer.decode(ids[tokenizer.model_max_length - 1 : -1]).strip()


# ---------------------------------------------------------------- painting


@dataclass
class Course:
    """What the first picture's latents are after some steps, evenly spread, but for the last.

    After that they are the picture, which is decoded anyway.
    """

    latents: list[Tensor] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # from 1

    def see(self, step: int, count: int, latents: Tensor) -> None:
        """Keep latents (N, C, h, w) after a step, from 0, of `count`, if it is to be shown."""
        if step in np.linspace(0, count - 1, min(SHOWN, count)).round().astype(int):
            self.steps.append(step + 1)
            if step + 1 < count:
                self.latents.append(latents[:1].clone())


@torch.inference_mode()
def paint(
    pipeline: StableDiffusionPipeline, prompts: Sequence[str], seeds: Sequence[int],
    runtime: Runtime, *, steps: int = STEPS, guidance: float = GUIDANCE, negative: str = "",
    size: tuple[int, int] | None = None, images: Sequence[Image.Image] | None = None,
    strength: float = STRENGTH, course: bool = False,
) -> Painted:  # fmt: skip
    """Paint a picture for each prompt.

    Args:
        seeds: of each one's noise; whatever is painted beside it.
        steps: of denoising; image to image takes `strength` of them.
        guidance: how much the words count: 1 as they do by themselves, 0 not at all.
        negative: what is said in place of nothing where guidance sets the words off against it.
        size: height and width in pixels, multiples of 8; else the pipeline's own.
        images: to begin with, one a prompt; the middle of each, of that shape, is taken.
        strength: how much noise images get, from 0, for what the autoencoder makes of them, to 1.
        course: keep what the first one looked like after some of the steps.

    Raises:
        LabError: the scheduler knows no so many steps, or what came of it are no numbers.
    """
    check_steps(pipeline, steps)
    size = size or size_of(pipeline)
    if images is not None and int(steps * strength) == 0:
        return Painted(reconstruct(pipeline, images, runtime, size))
    painter = painter_of(pipeline, FromWords if images is None else FromPicture)
    together = max(1, TOGETHER * 64 * 64 // (size[0] * size[1]))
    kept = Course()

    def after_step(_: Any, step: int, time: Any, values: dict[str, Tensor]) -> dict[str, Tensor]:
        bar.total = painter.num_timesteps * -(-len(prompts) // together)
        bar.update()
        if course and first == 0:
            kept.see(step, painter.num_timesteps, values["latents"])
        return values

    options: dict[str, Any] = {
        "num_inference_steps": steps, "guidance_scale": guidance, "output_type": "np",
        "callback_on_step_end": after_step,
    }  # fmt: skip
    options |= {"height": size[0], "width": size[1]} if images is None else {"strength": strength}
    pictures, blackened = [], []
    with progress(total=steps, label="painting") as bar:
        for first in range(0, len(prompts), together):
            own = slice(first, first + together)
            if images is not None:
                options["image"] = [cut_to(image, *size) for image in images[own]]
            options["negative_prompt"] = [negative] * len(prompts[own])
            options["generator"] = [torch.Generator().manual_seed(int(seed)) for seed in seeds[own]]
            with precision_of(pipeline, runtime):
                painted = painter(list(prompts[own]), **options)
            pictures.append(as_bytes(painted.images))
            flagged = painted.nsfw_content_detected or []
            blackened += [first + k for k, is_black in enumerate(flagged) if is_black]
    painted = Painted(np.concatenate(pictures), blackened=blackened)
    return with_course(painted, kept, pipeline, runtime)


def painter_of(pipeline: StableDiffusionPipeline, kind: type[Guided]) -> Any:
    """Return what paints with a pipeline's networks.

    Raises:
        LabError: the library takes them from words alone, say of pictures that are no squares.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            return prepared(kind(**pipeline.components, requires_safety_checker=False))
    except (TypeError, ValueError) as error:
        raise LabError(f"this model cannot be used so: {error}") from error


def with_course(
    painted: Painted, kept: Course, pipeline: StableDiffusionPipeline, runtime: Runtime
) -> Painted:
    """Return what was painted with the course of the first one, if there is one to be shown."""
    if not kept.steps or 0 in painted.blackened:  # what is not to be seen is not to be seen coming
        return painted
    shown = [decode(pipeline, latents, runtime) for latents in kept.latents]
    course = np.concatenate([*shown, painted.pictures[:1]])
    return painted._replace(course=course, steps=kept.steps)


def cut_to(image: Image.Image, height: int, width: int) -> Image.Image:
    """Return the middle of an image, as much of it as fits that shape, resized to it."""
    return ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BICUBIC)


def lost_by_cutting(image: Image.Image, height: int, width: int) -> float:
    """Return the share of an image that `cut_to` leaves out."""
    shapes = image.width / image.height, width / height
    return 1 - min(shapes) / max(shapes)


def say_cut(lost: Sequence[float]) -> None:
    """Print by how much pictures are cut, of the share that each loses, if it is worth saying."""
    if cut := sum(share >= LITTLE for share in lost):
        say(f"Cut to their middle: {cut} of {len(lost)} pictures, by up to {max(lost):.1%}")


def precision_of(pipeline: StableDiffusionPipeline, runtime: Runtime) -> Any:
    """Return the context that a pipeline computes in: half precision has need of none."""
    return runtime.autocast() if pipeline.unet.dtype == torch.float32 else nullcontext()


@torch.inference_mode()
def reconstruct(
    pipeline: StableDiffusionPipeline, images: Sequence[Image.Image], runtime: Runtime,
    size: tuple[int, int],
) -> np.ndarray:  # fmt: skip
    """Return what the autoencoder makes of images, cut to a size, uint8 (N, H, W, 3)."""
    vae, pictures = pipeline.vae, []
    for image in images:
        pixels = pipeline.image_processor.preprocess(cut_to(image, *size))
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
    """Return pictures in [0, 1] as uint8.

    Raises:
        LabError: they hold what is no number: half precision has been too small, or weights broken.
    """
    if not np.isfinite(pictures).all():
        raise LabError("what was painted are no numbers: the weights do not do in this precision")
    return (pictures * 255).round().astype(np.uint8)


# ---------------------------------------------------------------- what diffuse.py does


def paint_prompt(flags: DiffuseFlags) -> None:
    """Paint, and save the pictures, a sheet of them and the course of the first one."""
    image = path = None
    if flags.image is not None:
        path = image_path(flags.image, flags.save_dir / "images")
        image = read_image(path)
    runtime, name = start(flags.device), flags.model or own_model()
    words = known_words(name)
    pipeline = load_pipeline(name, runtime)
    if flags.scheduler is not None:
        set_scheduler(pipeline, flags.scheduler)
    strength = STRENGTH if flags.strength is None else flags.strength
    size = size_for(flags, size_of(pipeline), image)
    if image is not None:
        say_beginning(path.name, image, size, int(flags.steps * strength))
    guidance = guidance_for(flags, pipeline, PUBLISHED_GUIDANCE if words is None else GUIDANCE)
    say_of_words(pipeline, flags.prompt, words, "anything may be painted")
    say_of_words(pipeline, flags.negative_prompt or "", words, "it keeps nothing out")
    seeds = range(flags.seed, flags.seed + flags.num_images)
    painted = paint(
        pipeline, [flags.prompt] * len(seeds), seeds, runtime, steps=flags.steps,
        guidance=guidance, negative=flags.negative_prompt or "", size=size,
        images=None if image is None else [image] * len(seeds), strength=strength, course=True,
    )  # fmt: skip
    for number in painted.blackened:
        say(f"Seed {seeds[number]}: black, by the model's own safety checker; try another seed")
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


def size_for(
    flags: DiffuseFlags, own: tuple[int, int], image: Image.Image | None
) -> tuple[int, int]:
    """Return the height and width to paint: as asked for, else as the picture given, or `own`.

    A picture's shape is kept, its shorter side as long as the model's own.

    Raises:
        UsageError: they are more pixels than can be painted.
    """
    height, width = flags.height, flags.width
    if image is None:
        height, width = height or own[0], width or own[1]
    elif not (height and width):
        shape = min(LONGEST, max(1 / LONGEST, image.width / image.height))
        shorter = min(own)
        if height is None:
            height = whole(width / shape if width else shorter / min(shape, 1))
        width = width or whole(height * shape)
    if height * width > MOST_PIXELS:
        asked = f"{width}x{height} pixels are {height * width / 1e6:.1f} million"
        raise UsageError(f"{asked}: give --height and --width of fewer than 4 million")
    return height, width


def whole(side: float) -> int:
    """Return the multiple of 8 that is nearest to a side, since latents are coarser by 8."""
    return max(8, 8 * round(side / 8))


def say_beginning(name: str, image: Image.Image, size: tuple[int, int], steps: int) -> None:
    """Print as what a picture is begun with, and what of it is not seen."""
    height, width = size
    lost = lost_by_cutting(image, height, width)
    sides = "left and right" if image.width * height > image.height * width else "top and bottom"
    cut = f", without {lost:.1%} of it, at {sides}" if lost >= LITTLE else ""
    say(f"Begins with {shorten(name, 40)}, {image.width}x{image.height}, as {width}x{height}{cut}")
    if steps == 0:
        say("No step is left by that strength: it is what the autoencoder makes of the picture")


def guidance_for(flags: DiffuseFlags, pipeline: StableDiffusionPipeline, otherwise: float) -> float:
    """Return the guidance asked for, or the other one.

    Raises:
        UsageError: what is not to be seen is named, and nothing is set off against it.
    """
    guidance = otherwise if flags.guidance_scale is None else flags.guidance_scale
    if flags.negative_prompt is not None and guidance == 1:
        raise UsageError("--negative_prompt counts by guidance: give a --guidance_scale above 1")
    if flags.negative_prompt is not None and pipeline.unet.config.time_cond_proj_dim is not None:
        raise UsageError("--negative_prompt is of no use: this model paints without guidance")
    return guidance


def say_of_words(
    pipeline: StableDiffusionPipeline, prompt: str, words: Sequence[str] | None, of_none: str
) -> None:
    """Print which words of a prompt mean nothing, and which are beyond the prompt's length.

    Args:
        words: those that were learned; None if most are.
        of_none: what follows where none of the prompt's was.
    """
    if words is not None and (unknown := unknown_words(prompt, words)):
        all_of_it = len(unknown) == len(set(words_of(prompt)))
        none = f", that is all of it: {of_none}" if all_of_it else ""
        say(f"Never learned, so without a meaning: {', '.join(unknown)}{none}")
    if beyond := cut_off(pipeline, prompt):
        say(f"The prompt is too long; left out is: {beyond}")


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
        pictures = [np.asarray(cut_to(image, *painted.pictures.shape[1:3])), *pictures]
        captions = ["the picture given", *captions]
    columns = 4 + (image is not None)
    shown = [Picture("pictures.jpg", title, (sheet(pictures, captions, columns, side=1.8),))]
    if painted.course is not None:
        pairs = zip(painted.course, painted.steps, strict=True)
        tiles = [Tile(picture, f"step {step}") for picture, step in pairs]
        course = f"{title}, step by step: from noise to seed {seeds[0]}"
        shown.append(Picture("course.jpg", course, (Grid([tiles], side=1.4),)))
    return shown
