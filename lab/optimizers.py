"""Optimizers and learning rates' courses by name, also for a run that goes on with other ones."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel

from lab.console import LabError
from lab.settings import OPTIMIZERS, TrainSettings

FUSED = ("sgd", "adam", "adagrad", "adamw")  # those torch has one-kernel updates for
ONECYCLE_START, ONECYCLE_END = 25, 1e4  # the peak over the first rate, the first over the last
STEPS, STEP_FACTOR = 3, 0.1  # of `step`: equal parts, and each one's rate over the last one's


def make_optimizer(parameters: Any, settings: TrainSettings, device: str) -> Optimizer:
    """Return the optimizer a run asks for; `momentum` is SGD's alone, as in the assignment.

    Args:
        parameters: tensors, or groups of them as torch.optim takes them; a group's `lr_scale`
            multiplies its learning rate.
    """
    options: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optim_type == "sgd":
        options["momentum"] = settings.momentum
    if settings.optim_type in FUSED and not (settings.optim_type == "adagrad" and device != "cpu"):
        options["fused"] = True
    optimizer = uncompiled(getattr(torch.optim, OPTIMIZERS[settings.optim_type]))
    return optimizer(parameters, **options)


def uncompiled(optimizer: type[Optimizer]) -> type[Optimizer]:
    """Return an optimizer that computes the same and knows nothing of torch.compile.

    torch.optim hides its methods from the compiler, which no script here uses, by wrappers that
    import all of torch._dynamo when they are first called: as long a wait as for torch itself.
    """
    names = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(methods["step"])  # as its wrapper does
    return type(optimizer.__name__, (optimizer,), methods)


def resume_optimizer(
    optimizer: Optimizer, resumed: dict[str, Any], settings: TrainSettings
) -> None:
    """Load an optimizer's state from a checkpoint; its momentum and penalty may be new ones.

    Raises:
        LabError: the checkpoint has none, or one of another optimizer.
    """
    made_by = resumed.get("settings", {}).get("optim_type", settings.optim_type)
    try:
        state = resumed["optimizer_state"]
        missing = set(optimizer.defaults) - set(state["param_groups"][0])
        missing -= {"fused", "foreach", "decoupled_weight_decay"}  # of some versions of torch
        if missing or made_by != settings.optim_type:
            raise ValueError
        optimizer.load_state_dict(state)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise LabError(
            f"the checkpoint holds no state of --optim_type {settings.optim_type}; "
            "go on with the optimizer that made it"
        ) from error
    for group in optimizer.param_groups:
        group["weight_decay"] = settings.weight_decay
        if settings.optim_type == "sgd":
            group["momentum"] = settings.momentum


def make_schedule(
    optimizer: Optimizer, settings: TrainSettings, total: int, done: int
) -> LRScheduler:
    """Return the learning rate's course, stepped once a batch.

    Args:
        total: steps of the whole run.
        done: those that it has behind it, whatever rate and schedule they had.
    """
    for group in optimizer.param_groups:
        peak = settings.lr * group.get("lr_scale", 1.0)
        group["lr"] = group["initial_lr"] = peak
        if settings.schedule == "onecycle":  # as OneCycleLR lays them down for a run's first step
            start = peak / ONECYCLE_START
            group |= {"max_lr": peak, "initial_lr": start, "min_lr": start / ONECYCLE_END}
    if settings.schedule == "onecycle":
        # Momentum stays: cycling it gained nothing here, and not every optimizer has one.
        return OneCycleLR(
            optimizer, [group["max_lr"] for group in optimizer.param_groups], total,
            div_factor=ONECYCLE_START, final_div_factor=ONECYCLE_END, cycle_momentum=False,
            last_epoch=done - 1,
        )  # fmt: skip
    course = {
        "constant": lambda step: 1.0,
        "cosine": lambda step: (1 + math.cos(math.pi * step / total)) / 2,
        "step": lambda step: STEP_FACTOR ** min(STEPS - 1, STEPS * step // total),
    }
    return LambdaLR(optimizer, course[settings.schedule], last_epoch=done - 1)


def average_weights(model: nn.Module, decay: float) -> AveragedModel:
    """Return a copy of a network that holds an exponential moving average of its weights.

    It forgets faster at first, at step t by (1 + t) / (10 + t), lest it remember the random start.
    """

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        rate = 1 - ((1 + count) / (10 + count)).clamp(max=decay)  # stays on the device
        for mean, value in zip(averaged, current, strict=True):
            mean.lerp_(value, rate) if mean.is_floating_point() else mean.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)
