"""Optimizers and learning rates' courses by name, also for a run that goes on with other ones."""

import copy
import inspect
import math
from collections import defaultdict
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from lab.console import LabError
from lab.runtime import computes_bf16
from lab.settings import OPTIMIZERS, TrainSettings

FUSED = ("sgd", "adam", "adagrad", "adamw")  # those torch has one-kernel updates for
KERNELS = {"fused", "foreach"}  # options of torch's optimizers that change no result
ONECYCLE_START, ONECYCLE_END = 25, 1e4  # the peak over the first rate, the first over the last
STEPS, STEP_FACTOR = 3, 0.1  # of `step`: equal parts, and each one's rate over the last one's


def make_optimizer(parameters: Any, settings: TrainSettings, device: str) -> Optimizer:
    """Return the optimizer a run asks for; `momentum` is SGD's alone, as in the assignment.

    The parameters can be groups, as torch.optim takes them; a group's `lr_scale` multiplies its
    learning rate.
    """
    options: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if settings.optim_type == "muon":
        bf16 = settings.precision != "fp32" and computes_bf16(device)
        return Muon(parameters, torch.bfloat16 if bf16 else torch.float32, **options)
    if settings.optim_type == "sgd":
        options["momentum"] = settings.momentum
    if settings.optim_type in FUSED and not (settings.optim_type == "adagrad" and device != "cpu"):
        options["fused"] = True
    made = uncompiled(getattr(torch.optim, OPTIMIZERS[settings.optim_type]))(parameters, **options)
    if options.get("momentum"):
        # A scaler may pass over the first step, and SGD's own buffer is then whatever memory held.
        for weight in (own for group in made.param_groups for own in group["params"]):
            made.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return made


def uncompiled(optimizer: type[Optimizer]) -> type[Optimizer]:
    """Return an optimizer that computes the same and knows nothing of torch.compile.

    torch.optim hides its methods from the compiler, which no script here uses, by wrappers that
    import all of torch._dynamo when they are first called: as long a wait as for torch itself.
    """
    names = ("step", "zero_grad", "add_param_group", "state_dict", "load_state_dict")
    methods = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(methods["step"])  # as its wrapper does
    return type(optimizer.__name__, (optimizer,), methods)


class Muon(uncompiled(torch.optim.AdamW)):
    """Momentum of which every direction is learned at one rate; AdamW for what is no matrix.

    The weight of a layer is a matrix from all that an output is made of to the outputs. Of the
    momentum of its gradient, U S V^T, the step takes U V^T, nearly: what few examples ask for is
    learned as fast as what all of them do (Jordan et al. 2024, "Muon: An optimizer for hidden
    layers in neural networks"). Steps are as long as AdamW's, so that rates and decay suit both
    (Liu et al. 2025, section 2.2). Biases and norms are AdamW's.

    torch.optim.Muon computes the same, but takes nothing but matrices: neither convolutions nor
    what goes beside them. Here, `dtype` is that of the orthogonal matrices; all else is AdamW's.
    """

    momentum = 0.95

    def __init__(self, parameters: Any, dtype: torch.dtype = torch.float32, **options: Any):
        self.dtype = dtype
        super().__init__(parameters, fused=True, **options)
        self._step_supports_amp_scaling = False  # a scaler is to pass over all of a step

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take a step, which uses up the gradients of the matrices."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for weight in group["params"]:
                if weight.dim() > 1 and weight.grad is not None:
                    alike[weight.shape].append(weight)
            for weights in alike.values():
                self._turn(weights, group["lr"], group["weight_decay"])
        super().step(closure)

    def _turn(self, weights: list[Tensor], lr: float, weight_decay: float) -> None:
        """Take a step of weights of one shape: together, since a GPU has soon done with each."""
        gradients = [weight.grad for weight in weights]
        for weight in weights:
            if not (state := self.state[weight]):
                # AdamW, which loads all states, expects a count of steps in each.
                state |= {"step": torch.zeros(()), "momentum_buffer": torch.zeros_like(weight)}
            state["step"] += 1
            weight.grad = None  # AdamW's step passes over it
        means = [self.state[weight]["momentum_buffer"] for weight in weights]
        torch._foreach_lerp_(means, gradients, 1 - self.momentum)
        ahead = torch._foreach_lerp(gradients, means, self.momentum)  # Nesterov's
        last = [own.movedim(1, -1) for own in ahead]  # channels
        matrices = torch.stack([own.flatten(1) for own in last])
        turned = orthogonal(matrices.to(self.dtype)).to(matrices.dtype).unbind()
        length = 0.2 * math.sqrt(max(matrices.shape[1:]))  # AdamW's is 0.2 in the mean, of any size
        torch._foreach_mul_(weights, 1 - lr * weight_decay)
        ways = [own.view(last[0].shape).movedim(-1, 1) for own in turned]
        torch._foreach_sub_(weights, ways, alpha=lr * length)


def orthogonal(matrices: Tensor) -> Tensor:
    """Return nearly U V^T of each matrix U S V^T, (K, M, N): its singular values become 0.7 to 1.2.

    Five steps of Newton and Schulz, by a polynomial that rises steeply at 0 (Jordan et al. 2024).
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = x @ x.mT
        change = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        x = torch.baddbmm(x, change, x, beta=3.4445)
    return x.mT if tall else x


def resume_optimizer(
    optimizer: Optimizer, resumed: dict[str, Any], settings: TrainSettings
) -> None:
    """Load an optimizer's state from a checkpoint; its momentum and penalty may be new ones.

    A LabError says that the checkpoint has none, or one of another optimizer.
    """
    made_by = resumed.get("settings", {}).get("optim_type", settings.optim_type)
    try:
        state = resumed["optimizer_state"]
        missing = set(optimizer.defaults) - set(state["param_groups"][0])
        missing -= KERNELS | {"decoupled_weight_decay"}  # of some versions of torch
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
        # Which kernels there are is the device's, which may be another one.
        group |= {name: optimizer.defaults[name] for name in KERNELS & optimizer.defaults.keys()}
        if settings.optim_type == "sgd":
            group["momentum"] = settings.momentum


def make_schedule(
    optimizer: Optimizer, settings: TrainSettings, total: int, done: int
) -> LRScheduler:
    """Return the learning rate's course, stepped once a batch, over a run of `total` steps.

    Of these, `done` are behind it, whatever rate and schedule they had.
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
    rises = round(settings.warmup * total / settings.epoch)  # steps

    def factor(step: int) -> float:
        return course[settings.schedule](step) * min(1.0, (step + 1) / max(1, rises))

    return LambdaLR(optimizer, factor, last_epoch=done - 1)


class Average:
    """A copy of a network that holds an exponential moving average of its weights.

    It forgets faster at first, at step t by (1 + t) / (10 + t), lest it remember the random start.
    torch.optim's AveragedModel counts its steps on the device, which every step would wait for.

    Attributes:
        module: the copy.
        count: steps that it is an average of.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.module, self.decay, self.count = copy.deepcopy(network), decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the network's weights and statistics of now."""
        count = torch.tensor(self.count)
        rate = float(1 - ((1 + count) / (10 + count)).clamp(max=self.decay)) if self.count else 1.0
        pairs = list(zip(_tensors(self.module), _tensors(network), strict=True))
        nearer = [pair for pair in pairs if rate < 1 and pair[0].is_floating_point()]
        if nearer:  # all together, since a GPU has soon done with each
            torch._foreach_lerp_(*map(list, zip(*nearer, strict=True)), rate)
        for mean, value in pairs:
            if rate == 1 or not mean.is_floating_point():
                mean.copy_(value)
        self.count += 1


def _tensors(network: nn.Module) -> chain[Tensor]:
    return chain(network.parameters(), network.buffers())
