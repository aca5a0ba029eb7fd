"""What style transfer makes: one picture, optimised, or what a trained network makes of any."""

import time
from pathlib import Path

import torch
from PIL import Image

from lab import checkpoint
from lab.console import LabError, UsageError, command, counted, say
from lab.drawing import draw, publish
from lab.fetching import given_images, picture_file
from lab.flags import as_name, as_words, asked_for
from lab.images import Preprocess, read_image, save_picture, whole_picture
from lab.pictures import Picture
from lab.runtime import start
from tasks import TestFlags
from tasks.style import MOST_PIXELS, MOST_VARIED, TASK, StyleFlags
from tasks.style.losses import make_losses
from tasks.style.networks import repaint
from tasks.style.picture import losses_in_words, transfer
from tasks.style.views import draw_course
from tasks.trained import Trained, another_run, load_trained

# Flags by which one picture is varied in another way.
WAYS = ("model", "weights", "preset", "size", "style_size", "content_weight", "style_weights",
        "tv_weight", "steps", "start", "optim_type", "lr", "seed", "ckpt_path")  # fmt: skip


def read_pictures(trained: Trained, flags: TestFlags) -> None:
    """Paint the pictures that `--image` names, each by one pass, into the run's `results/`."""
    for index, (file, image) in enumerate(given_images(flags.image)):
        target = trained.results / f"results/{index:04d}_{file.stem}.jpg"
        paint_image(trained, image, None, file.name, target)


def paint_image(
    trained: Trained, image: Image.Image, size: int | None, name: str, target: Path
) -> None:
    """Paint a picture by one pass and save it.

    Args:
        size: of its shorter side, in pixels; None for its own.
        name: of the picture.
    """
    images = whole_picture(image, size, Preprocess(), MOST_PIXELS, name)
    began = time.perf_counter()
    pixels = repaint(trained.network, images, trained.runtime)
    say(f"One pass in {time.perf_counter() - began:.2f} s")
    save_picture(pixels, target)


def paint(flags: StyleFlags) -> None:
    """Paint the picture that style.py is asked for.

    Raises:
        LabError: the run of `--ckpt_path` is no use for it; says what is.
    """
    folder, trained = flags.ckpt_path, None
    of_one = [f"--{name}" for name in asked_for(flags, *WAYS) if name not in ("size", "ckpt_path")]
    if flags.style is None and of_one:
        raise UsageError(f"{', '.join(of_one)} is of --style FILE: a network paints as it is")
    if folder is not None:
        if flags.style is None and not checkpoint.epochs(folder):
            hint = ("--train", "--style", "FILE", "--data_root", "FOLDER", "--ckpt_path", folder)
            raise LabError(
                f"no checkpoints in {folder}; train a network for one style: "
                f"{command('style.py', *hint)}"
            )
        trained = load_trained(checkpoint.find(folder, "last"), flags.device, "fp32")
        paints = trained.task is TASK
        if paints and flags.style is not None:
            raise LabError(f"{trained.path} paints in a style of its own; leave out --style")
        if not paints and flags.style is None:
            wrong = f"{folder} holds no style of its own; give --style FILE"
            raise UsageError(f"{wrong}; {another_run(TASK.name, folder)}")
    content_file = picture_file(flags.content, flags.save_dir)
    if flags.style is not None:
        optimise(flags, content_file, trained)
        return
    name = f"{content_file.stem}_{folder.resolve().name}{as_name(asked_for(flags, 'size'))}"
    target = flags.save_dir / f"style/{name}.jpg"
    paint_image(trained, read_image(content_file), flags.size, content_file.name, target)


def optimise(flags: StyleFlags, content_file: Path, trained: Trained | None) -> None:
    """Optimise one picture; save it, and its course as a strip.

    Args:
        trained: whose features are compared; None for torchvision's network of `--model`.
    """
    device = (trained.runtime if trained else start(flags.device, "fp32")).device
    style_file = picture_file(flags.style, flags.save_dir)
    losses, preprocess = make_losses(flags, style_file, device, trained)
    image = read_image(content_file)
    content = whole_picture(
        image, losses.recipe.size, preprocess, MOST_VARIED, content_file.name
    ).to(device)
    bounds, initial = preprocess.bounds(device), content
    if flags.start == "noise":
        generator = torch.Generator().manual_seed(flags.seed)
        noise = torch.rand(content.shape, generator=generator).to(device)
        initial = bounds[0] + (bounds[1] - bounds[0]) * noise
    began = time.perf_counter()
    course = transfer(losses, content, initial, bounds, flags.steps, flags.optim_type, flags.lr)
    seconds = time.perf_counter() - began
    first, last = course.losses[0].sum(), course.losses[-1].sum()
    done = counted(flags.steps, "steps")
    say(
        f"{done} in {seconds:.0f} s: {losses_in_words(course.losses[-1])}; "
        f"in all {last:,.0f}, from {first:,.0f}"
    )
    asked = asked_for(flags, *WAYS)
    name = f"{content_file.stem}_{style_file.stem}{as_name(asked)}"
    save_picture(preprocess.denormalize(course.result), flags.save_dir / f"style/{name}.jpg")
    title = f"{content_file.stem} in the manner of {style_file.stem}"
    title += f"\n{as_words(asked)}" * bool(asked)
    strip = draw_course(course, content, style_file, preprocess)
    picture = Picture(f"style/{name}_steps.jpg", title, (strip,))
    publish(draw(picture), flags.save_dir / picture.path)
    if last > 1.01 * first:
        grown = f"the losses have grown, from {first:,.0f} to {last:,.0f}"
        raise LabError(f"{grown}: what is saved is no picture; lower --lr, or take more --steps")
