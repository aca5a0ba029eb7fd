"""One picture, varied until content and style fit (Gatys et al. 2016, section 2.3)."""

import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lab.console import LabError, progress, say
from lab.images import Preprocess, open_image, picture_file, read_picture, save_picture, to_arrays
from lab.runtime import Runtime
from tasks.style import OPTIMIZERS
from tasks.style.losses import StyleLosses, make_losses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = (0, 1 / 20, 1 / 8, 1 / 3, 1)  # of the course, in the strip


@dataclass(frozen=True)
class Course:
    """What an optimisation went through.

    Attributes:
        losses: (steps + 1, 3): content, style and total variation before each step and at the end.
        pictures: step to network input, (1, 3, H, W), as it was before that step.
    """

    losses: Tensor
    pictures: dict[int, Tensor]

    @property
    def result(self) -> Tensor:
        return self.pictures[len(self.losses) - 1]


def transfer(
    losses: StyleLosses,
    content_image: Tensor,
    start: Tensor,
    bounds: tuple[Tensor, Tensor],
    steps: int = 200,
    optim_type: str = "lbfgs",
    lr: float | None = None,
) -> Course:
    """Vary a picture until content and style fit (Gatys et al. 2016, section 2.3).

    Args:
        content_image, start: network input, (1, 3, H, W).
        bounds: least and greatest network input of a pixel; the picture is clamped to them.
        steps: evaluations of the losses and their gradient, whichever the optimizer.
        optim_type: lbfgs or adam.
        lr: adam's falls from it to nearly nothing.

    Raises:
        LabError: the losses are no longer finite.
    """
    image = start.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    lr = lr or OPTIMIZERS[optim_type]
    if optim_type == "adam":
        optimizer = torch.optim.Adam([image], lr, fused=True)
    else:  # one evaluation a step; a history beyond 5 cost time and gained nothing
        optimizer = torch.optim.LBFGS([image], lr, max_iter=1, history_size=5)
    content_target = losses.content_target(content_image)
    shown = {round(share * steps) for share in SHOWN}
    history, pictures = [], {}

    def evaluate() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        values = losses(image, content_target)
        total = values.sum()
        total.backward()
        history.append(values.detach())
        return total

    with progress(total=steps, label="painting") as bar:
        for step in range(steps):
            if step in shown:
                pictures[step] = image.detach().clone()
            if optim_type == "adam":
                optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            optimizer.step(evaluate)
            with torch.no_grad():
                image.clamp_(*bounds)
            if step % 10 == 0:  # a look waits for the device
                bar.set_postfix_str(describe(history[-1]), refresh=False)
            bar.update()
    with torch.no_grad():
        history.append(losses(image, content_target))
    if not history[-1].isfinite().all():
        raise LabError("the losses are no longer finite; lower --lr")
    pictures[steps] = image.detach()
    return Course(torch.stack(history).cpu(), pictures)


def describe(losses: Tensor) -> str:
    """Name the three losses of `StyleLosses`."""
    return ", ".join(
        f"{name} {value:,.0f}"
        for name, value in zip(("content", "style", "TV"), losses.tolist(), strict=True)
    )


def paint(args: Namespace, runtime: Runtime) -> None:
    """Optimise one picture as the flags ask; save it, and its course as a strip."""
    content_file = picture_file(args.content, args.save_dir)
    style_file = picture_file(args.style, args.save_dir)
    losses, preprocess = make_losses(args, style_file, runtime.device)
    content = read_picture(content_file, losses.recipe.size, preprocess).to(runtime.device)
    bounds = preprocess.bounds(runtime.device)
    start = content
    if args.start == "noise":
        generator = torch.Generator().manual_seed(args.seed)
        noise = torch.rand(content.shape, generator=generator).to(runtime.device)
        start = bounds[0] + (bounds[1] - bounds[0]) * noise
    began = time.perf_counter()
    course = transfer(losses, content, start, bounds, args.steps, args.optim_type, args.lr)
    seconds = time.perf_counter() - began
    first, last = course.losses[0].sum(), course.losses[-1].sum()
    say(
        f"{args.steps} steps in {seconds:.0f} s: {describe(course.losses[-1])}; "
        f"in all {last:,.0f}, from {first:,.0f}"
    )
    name = f"{content_file.stem}_{style_file.stem}"
    folder = args.save_dir / "style"
    save_picture(preprocess.denormalize(course.result), folder / f"{name}.jpg")

    from lab.pictures import publish

    publish(draw_course(course, content, style_file, preprocess), folder / f"{name}_steps.jpg")


def draw_course(
    course: Course, content: Tensor, style_file: Path, preprocess: Preprocess
) -> "Figure":
    """Draw a strip: content, style, and the picture at some steps with its losses."""
    import matplotlib.pyplot as plt

    panels = {"content": to_arrays(preprocess.denormalize(content))[0]}
    panels["style"] = np.asarray(open_image(style_file).convert("RGB"))
    for step, picture in course.pictures.items():
        caption = describe(course.losses[step]).replace(", ", "\n")
        pixels = to_arrays(preprocess.denormalize(picture))[0]
        panels[f"after {step} steps\n{caption}"] = pixels
    widths = [pixels.shape[1] / pixels.shape[0] for pixels in panels.values()]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(2.4 * sum(widths), 3.4), width_ratios=widths, layout="constrained"
    )
    for axis, (caption, pixels) in zip(axes, panels.items(), strict=True):
        axis.imshow(pixels)
        axis.axis("off")
        axis.set_title(caption, fontsize=9)
    return figure
