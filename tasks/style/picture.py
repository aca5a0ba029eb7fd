"""One picture, varied until content and style fit (Gatys et al. 2016, section 2.3)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lab.console import LabError, progress
from tasks.style import OPTIMIZERS
from tasks.style.losses import StyleLosses

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
                bar.set_postfix_str(losses_in_words(history[-1]), refresh=False)
            bar.update()
    with torch.no_grad():
        history.append(losses(image, content_target))
    if not history[-1].isfinite().all():
        raise LabError("the losses are no longer finite; lower --lr")
    pictures[steps] = image.detach()
    return Course(torch.stack(history).cpu(), pictures)


def losses_in_words(losses: Tensor) -> str:
    """Name the three losses of `StyleLosses`."""
    return ", ".join(
        f"{name} {value:,.0f}"
        for name, value in zip(("content", "style", "TV"), losses.tolist(), strict=True)
    )
