"""A network, and all that makes it learn: one step.

    learner = Learner(objective, network, settings, runtime).begin(total=1000)
    loss, figures = learner.step(inputs, targets)

The same code runs on a CPU, on a GPU and in every process of torchrun.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.nn.parallel import DistributedDataParallel

from lab.console import LabError
from lab.graphs import Graphed, Passes
from lab.objective import Objective, loss_and_figures
from lab.optimizers import Average, make_optimizer, make_schedule, resume_optimizer
from lab.runtime import Runtime, generator_states, place, restore_generators
from lab.settings import TrainSettings

# A scale of losses below which fp16 holds no gradients: from the first one on, 36 steps are skipped
# one after the other.
LEAST_SCALE = 2.0**-20


class Learner:
    """A network and all that makes it learn.

    Args:
        network: on the CPU or the device; trained in place.
        parameters: groups of the network's, as `make_optimizer` takes them; all if None.

    Attributes:
        trained: the network, of several processes in what averages their gradients; compiled
            where that is asked for.
        tested: what is validated and saved: the network, or the average of its weights.
        scaler: of losses in fp16, so that small gradients do not vanish; else does nothing.
        skipped: steps of this epoch that were none, since gradients were not finite in fp16.
        rate: learning rate of the last step.
    """

    def __init__(
        self,
        objective: Objective,
        network: nn.Module,
        settings: TrainSettings,
        runtime: Runtime,
        parameters: list[dict[str, Any]] | None = None,
    ):
        self.objective, self.settings, self.runtime = objective, settings, runtime
        self.network = self.trained = place(network, runtime)
        self.passes: Passes = self._passes
        parameters = parameters or list(network.parameters())
        self.optimizer = make_optimizer(parameters, settings, runtime.device.type)
        self.average = Average(self.network, settings.ema) if settings.ema else None
        self.scaler = GradScaler(runtime.device.type, enabled=runtime.scales)
        self.skipped = torch.zeros((), dtype=torch.int64, device=runtime.device)

    @property
    def tested(self) -> nn.Module:
        return self.network if self.average is None else self.average.module

    @property
    def networks(self) -> nn.ModuleList:
        """The network and, where there is one, its average."""
        return nn.ModuleList(dict.fromkeys([self.network, self.tested]))

    @property
    def has_frozen_body(self) -> bool:
        """True where a part is not trained: it stays as it is, batch norm's statistics as well.

        What is trained on it does the same in either mode, or is trained as it is tested.
        """
        return not all(parameter.requires_grad for parameter in self.network.parameters())

    def begin(self, total: int, done: int = 0) -> Self:
        """Get ready for the first step of a run of `total`, of which `done` are behind it."""
        self.schedule = make_schedule(self.optimizer, self.settings, total, done)
        self.rate = self.optimizer.param_groups[0]["lr"]
        if self.runtime.scales:  # the first steps may be none of the optimizer's
            warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step")
        if self.runtime.world_size > 1:
            if self.runtime.device.type == "cuda":
                self.network = nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # of a name torch 2.11 has not yet
                self.trained = DistributedDataParallel(self.network, broadcast_buffers=False)
        if self.settings.compile:
            self.trained = torch.compile(self.trained)
        alone = self.runtime.world_size == 1
        if self.settings.graph and alone and self.runtime.device.type == "cuda":
            self.passes = Graphed(self._passes, self.network.parameters())
        self.buffers: dict[torch.dtype, list[Tensor]] = {}  # which a step that is none gives back
        for buffer in self.network.buffers() if self.runtime.scales else ():
            self.buffers.setdefault(buffer.dtype, []).append(buffer)
        return self

    def train(self) -> None:
        """Bring the network into the mode that it is trained in."""
        self.trained.train(not self.has_frozen_body)

    def step(
        self, inputs: Any, targets: Any, share: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Learn from a batch on the device; return the loss before, and the figures beside it.

        `share` weights this process's gradient, among several.
        """
        before = self._joined_buffers()
        passes = self.passes if share is None else partial(self._passes, share=share)
        loss, figures = passes(inputs, targets)
        if self.settings.clip_norm:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.trained.parameters(), self.settings.clip_norm)
        self._move(before)
        self.rate = self.optimizer.param_groups[0]["lr"]
        self.schedule.step()
        if self.average is not None:
            self.average.update(self.network)
        return loss, figures

    def _passes(
        self, inputs: Any, targets: Any, share: Tensor | float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Go forward, and back to the gradients; return what `step` does."""
        with self.runtime.autocast():
            loss, figures = loss_and_figures(self.objective.loss(self.trained, inputs, targets))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss * share).backward()
        return loss.detach(), {name: value.detach() for name, value in figures.items()}

    def _joined_buffers(self) -> list[Tensor]:
        """Return, where a step may come to nothing, a copy of what it changes besides weights.

        Of each type one tensor, so that a GPU has few kernels to launch.
        """
        kinds = self.buffers.values()
        return [torch.cat([buffer.flatten() for buffer in kind]) for kind in kinds]

    def _move(self, before: list[Tensor]) -> None:
        """Have the optimizer take its step; of gradients that are not finite, none.

        In fp16, they come of a scale that is too high, and is halved, or of inputs that are beyond
        the type, from which batch norm's statistics would not recover: all stays as it was.

        Args:
            before: what `_joined_buffers` returned before the step.
        """
        if not self.runtime.scales:
            self.optimizer.step()
            return
        one = torch.ones((), device=self.runtime.device)
        scale = self.scaler.scale(one)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        skipped = self.scaler.scale(one) < scale
        self.skipped += skipped
        known = zip(self.buffers.values(), before, self._joined_buffers(), strict=True)
        for kind, old, new in known:
            parts = torch.where(skipped, old, new).split([buffer.numel() for buffer in kind])
            torch._foreach_copy_(
                kind, [part.view_as(buffer) for part, buffer in zip(parts, kind, strict=True)]
            )

    @torch.no_grad()
    def loss_is_finite(self, inputs: Any, targets: Any) -> Tensor:
        """Return, as a boolean on the device, whether the network, as tested, can go on.

        Where steps are skipped, what fp16 cannot hold is no reason to stop.
        """
        with (self.runtime.in_fp32 if self.runtime.scales else self.runtime).autocast():
            loss = self.objective.loss(self.network.eval(), inputs, targets)
        return loss_and_figures(loss)[0].isfinite()

    def all_can_go_on(self, inputs: Any, targets: Any) -> bool:
        """Return `loss_is_finite` of all processes, in the middle of an epoch."""
        generators = generator_states(self.runtime)
        finite = self.runtime.least(self.loss_is_finite(inputs, targets).float())
        restore_generators(generators, self.runtime)
        self.train()
        return bool(finite)

    def check_scale(self) -> None:
        """Raise a LabError where hardly a step has been taken in fp16."""
        if self.runtime.scales and self.scaler.get_scale() < LEAST_SCALE:
            raise LabError(
                "fp16 cannot hold the numbers of this network, step after step was skipped: "
                "train it with --precision fp32"
            )

    def take_skipped(self) -> int:
        """Return the steps skipped since the last call."""
        skipped = int(self.skipped)
        self.skipped.zero_()
        return skipped

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        state = {"model_state": self.tested.state_dict()}
        if self.average is not None:
            averaged = self.average.count
            state |= {"raw_state": self.network.state_dict(), "averaged": averaged}
        if self.runtime.scales:
            state["scaler"] = self.scaler.state_dict() | {"skipped": int(self.skipped)}
        return state | {"optimizer_state": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        """Go on with what `state` returned; the network holds its `model_state` already.

        Raises:
            LabError: the state is of another optimizer, or none.
        """
        resume_optimizer(self.optimizer, state, self.settings)
        if "raw_state" in state:  # then the network came here with the average
            self.network.load_state_dict(state["raw_state"])
            if self.average is not None:
                self.average.count = state["averaged"]
        if self.runtime.scales and "scaler" in state:
            own = dict(state["scaler"])
            try:
                self.skipped.fill_(own.pop("skipped"))
                self.scaler.load_state_dict(own)
            except (LookupError, TypeError, RuntimeError) as error:
                raise LabError("the checkpoint holds no state of fp16's scale") from error

    def finish(self) -> None:
        """Leave the network with the weights that are tested."""
        if self.average is not None:
            self.network.load_state_dict(self.tested.state_dict())


@contextmanager
def compiling(settings: TrainSettings) -> Iterator[None]:
    """Turn what torch.compile cannot do into a LabError."""
    try:
        yield
    except Exception as error:
        own = type(error).__module__.startswith(("torch._dynamo", "torch._inductor"))
        if not (settings.compile and own):
            raise
        why = str(error).strip().partition("\n")[0]
        raise LabError(f"--compile: torch cannot do it here ({why}); leave it out") from error
