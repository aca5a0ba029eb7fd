"""The loop: one epoch of training, one evaluation, and the sequence of both.

`fit` trains any network on any `Task`: it resumes exactly, validates, saves and stops cleanly. The
same code runs on a CPU, on a GPU and in every process of torchrun.
"""

import math
import signal
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from lab.console import LabError, as_text, command, progress, say
from lab.optimizers import average_weights, make_optimizer, make_schedule, resume_optimizer
from lab.run import Run, best_epoch
from lab.runtime import (
    Runtime,
    average_buffers,
    place,
    process_states,
    restore_process,
    seed_epoch,
    to_device,
)
from lab.settings import TrainSettings
from lab.task import Loss, Meter, Task

CHECK_EVERY = 50  # steps between two looks at the loss; each look waits for the device
NEVER = 2**62  # a step that no training comes to
OVERFIT_STEPS, OVERFIT_SHARE = 200, 0.01  # at most; of the first loss, for a batch to be learned
OVERFIT_SHOWN = (1, 2, 5, 10, 20, 50, 100, 200)
AGREE_EVERY = 16  # steps between two looks, on a GPU, at whether another process is to stop


class Diverged(LabError):
    """Numbers of a training are no longer finite."""


# ---------------------------------------------------------------- one epoch


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the step at hand."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, runtime: Runtime) -> None:
        self.made = False
        # To its processes torchrun passes on what the terminal has sent them already, and ends
        # those that take too long.
        self.once_more_ends = runtime.world_size == 1

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.made:
            if self.once_more_ends:
                raise KeyboardInterrupt
            return
        self.made = True
        say("\nStopping after this step (once more to stop at once) ...")


@dataclass
class EpochState:
    """How far an epoch has come: what is added up, and what a resumed epoch goes on from."""

    images: int = 0  # inputs done, over all processes
    sums: dict[str, float] = field(default_factory=dict)  # of the loss and its figures, over inputs
    trained: int = 0  # images since this process took the epoch up
    seconds: float = 0.0  # likewise

    @classmethod
    def restore(cls, saved: dict[str, Any]) -> "EpochState":
        """Go on from a checkpoint's; earlier ones hold the loss alone."""
        return cls(saved["images"], saved.get("sums") or {"loss": saved["loss_sum"]})

    def means(self) -> dict[str, float]:
        """Return the loss and the figures beside it, means over the inputs."""
        return {name: value / max(1, self.images) for name, value in self.sums.items()}

    def add(self, sums: dict[str, float], images: int) -> None:
        """Add sums over so many images; figures that an earlier part lacks are left out."""
        first = not self.images
        self.sums = {
            name: value + self.sums.get(name, 0.0)
            for name, value in sums.items()
            if first or name in self.sums
        }
        self.images += images
        self.trained = images


def train_one_epoch(
    task: Task,
    model: nn.Module,
    loader: DataLoader,
    optimizer: Optimizer,
    schedule: LRScheduler,
    runtime: Runtime,
    state: EpochState,
    clip_norm: float = 0.0,
    average: AveragedModel | None = None,
    stop: StopRequest | None = None,
    label: str = "",
) -> bool:
    """Train on what `loader` still has of an epoch, adding to `state`.

    On a GPU nothing waits for the device within a step. What the last step has come to is seen by
    the loss after it.

    Args:
        clip_norm: most that the norm of all gradients may be; 0 for any.
        average: follows the weights.
        stop: heeded after the step at hand, in all processes after the same one.

    Returns:
        True if the epoch is done, False if it was stopped.

    Raises:
        Diverged: the loss is no longer finite; names the first such step.
    """
    model.train(not has_frozen_body(model))
    began, trained, stopped = time.perf_counter(), 0, False
    agree_every = AGREE_EVERY if runtime.device.type == "cuda" else 1
    # On the device: sums over inputs, and the first step whose loss was not finite.
    names: tuple[str, ...] = ("loss",)
    sums = torch.zeros(1, dtype=torch.float64, device=runtime.device)
    bad_step = torch.full((), NEVER, device=runtime.device)
    bar = progress(loader, total=loader.batch_sampler.batches_left(state.images), label=label)
    for step, (inputs, targets) in enumerate(bar, 1):
        inputs, targets = to_device(inputs, runtime), to_device(targets, runtime)
        count, share = len(inputs), 1.0
        if runtime.world_size > 1:
            # DDP averages the processes' gradients; weighting each by its share of the batch
            # makes that the gradient of the whole batch's mean.
            wishes = [float(count), float(stop is not None and stop.made)]
            total, wish = runtime.total(torch.tensor(wishes, device=runtime.device))
            share = count * runtime.world_size / total
        with runtime.autocast():
            loss, figures = loss_and_figures(task.loss(model, inputs, targets))
        optimizer.zero_grad(set_to_none=True)
        (loss * share).backward()
        if clip_norm:
            nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        schedule.step()
        if average is not None:
            average.update_parameters(model)

        trained += count
        loss = loss.detach()
        names = ("loss", *figures)
        sums = sums + torch.stack([loss, *figures.values()]).detach().double() * count
        bad_step = torch.where(loss.isfinite(), bad_step, bad_step.clamp(max=step))
        if step % CHECK_EVERY == 0:
            _check_finite(bad_step, runtime, label)
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
        if runtime.world_size > 1:
            stopped = step % agree_every == 0 and bool(wish)
        else:
            stopped = stop is not None and stop.made
        if stopped:
            break
    if not stopped:
        finite = loss_is_finite(task, model, inputs, targets, runtime)
        bad_step = torch.where(finite, bad_step, bad_step.clamp(max=step))
    _check_finite(bad_step, runtime, label)
    totals = runtime.total(torch.cat([sums, sums.new_tensor([trained])])).tolist()
    state.add(dict(zip(names, totals, strict=False)), int(totals[-1]))
    state.seconds = time.perf_counter() - began
    return not stopped


def has_frozen_body(model: nn.Module) -> bool:
    """True where a part is not trained: it stays as it is, batch norm's statistics as well.

    The layer that is trained on it, linear or a convolution, does the same in either mode.
    """
    return not all(parameter.requires_grad for parameter in model.parameters())


def loss_and_figures(result: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what `Task.loss` returned as a loss and the figures beside it."""
    return result if isinstance(result, tuple) else (result, {})


@torch.no_grad()
def loss_is_finite(
    task: Task, model: nn.Module, inputs: Any, targets: Any, runtime: Runtime
) -> Tensor:
    """Return, as a boolean on the device, whether a network, as it is tested, can go on."""
    model.eval()
    with runtime.autocast():
        return loss_and_figures(task.loss(model, inputs, targets))[0].isfinite()


def _check_finite(bad_step: Tensor, runtime: Runtime, label: str) -> None:
    if (step := int(runtime.least(bad_step))) < NEVER:
        raise Diverged(f"the loss is no longer finite since step {step} of {label or 'the epoch'}")


# ---------------------------------------------------------------- one evaluation


@torch.inference_mode()
def evaluate(
    model: nn.Module, meter: Meter, loader: Iterable, runtime: Runtime, label: str = ""
) -> dict[str, float]:
    """Show a meter a network, in evaluation mode, and a split; return the figures."""
    model.eval()
    for inputs, targets in progress(loader, label=label):
        with runtime.autocast():
            meter.update(model, to_device(inputs, runtime), to_device(targets, runtime))
    return meter.compute(runtime)


# ---------------------------------------------------------------- a run


def fit(
    task: Task,
    model: nn.Module,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    settings: TrainSettings,
    runtime: Runtime,
    run: Run,
    identity: dict[str, Any],
    resumed: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Train `model` up to `settings.epoch` epochs, with a checkpoint and a log line after each.

    Args:
        model: on the CPU or the device; trained in place. With `settings.ema` it ends with the
            averaged weights.
        val_loader: None where there is nothing to measure.
        run: the folder; gets checkpoints and metrics.
        identity: what every checkpoint holds besides the state: configs, class names and so on.
        resumed: the loaded checkpoint to go on from.
        parameters: groups of `model`'s parameters to train, as `make_optimizer` takes them; all
            of them if None.

    Returns:
        The history: a row an epoch, as in metrics.csv.

    Raises:
        LabError: numbers that are no longer finite, or a checkpoint that cannot be saved.
        KeyboardInterrupt: stopped by Ctrl-C, after saving.
    """
    model = place(model, runtime)
    optimizer = make_optimizer(
        parameters or list(model.parameters()), settings, runtime.device.type
    )
    average = average_weights(model, settings.ema) if settings.ema else None
    history, state, processes, finished = [], EpochState(), None, 0
    if resumed is not None:
        finished, history = resumed["epoch"], list(resumed.get("history", []))
        state, processes = _take_up(resumed, model, optimizer, average, settings)
    sampler = train_loader.batch_sampler
    # An epoch that another batch size began counts as if this one had: the end is what counts.
    behind = (finished + 1) * len(sampler) - sampler.batches_left(state.images)
    schedule = make_schedule(optimizer, settings, settings.epoch * len(sampler), behind)

    trained = model
    if runtime.world_size > 1:
        if runtime.device.type == "cuda":
            model = trained = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of a name that torch 2.11 has not yet
            trained = DistributedDataParallel(model, broadcast_buffers=False)
    tested = model if average is None else average.module
    networks = nn.ModuleList([model] if average is None else [model, tested])

    def snapshot(**more: Any) -> dict[str, Any]:
        weights = {"model_state": tested.state_dict()}
        if average is not None:
            weights |= {"raw_state": model.state_dict(), "averaged": int(average.n_averaged)}
        return {
            **weights,
            "optimizer_state": optimizer.state_dict(),
            "task": task.name,
            **identity,
            "settings": asdict(settings),
            "epoch": finished,
            "best_epoch": best_epoch(history, task.ranks_by, settings.schedule),
            "history": history,
            **more,
        }

    with StopRequest(runtime) as stop:
        for epoch in range(finished + 1, settings.epoch + 1):
            label = f"epoch {epoch}/{settings.epoch}"
            sampler.epoch, sampler.start = epoch, state.images
            seed_epoch(settings.seed, epoch, runtime.rank)
            if processes is not None:
                restore_process(processes, networks, runtime)
                processes = None
            began = time.perf_counter()
            try:
                whole = train_one_epoch(
                    task, trained, train_loader, optimizer, schedule, runtime, state,
                    settings.clip_norm, average, stop, label,
                )  # fmt: skip
                if not whole and sampler.batches_left(state.images):
                    begun = asdict(state) | {"trained": 0, "seconds": 0.0}
                    processes = process_states(networks, runtime)
                    path = run.save_interrupted(snapshot(epoch_state=begun, processes=processes))
                    done = f"epoch {epoch}, {state.images:,} of {sampler.count:,} images"
                    _end_interrupted(path, done, runtime)
                if not has_frozen_body(model):
                    average_buffers(networks, runtime)
                row = {"epoch": epoch, **state.means()}
                due = epoch % settings.val_interval == 0 or epoch == settings.epoch
                if val_loader is not None and due:
                    figures = evaluate(tested, task.meter(), val_loader, runtime, "validating")
                    row |= {f"val_{name}": value for name, value in figures.items()}
                _check_worth_saving(networks, row, label)
            except Diverged as error:
                way_out = _way_out(task, model, train_loader, run, runtime)
                raise LabError(f"{error}; {way_out}") from error
            row |= {
                "learning_rate": optimizer.param_groups[0]["lr"],
                "images_per_second": state.trained / state.seconds,
                "seconds": time.perf_counter() - began,
            }
            history.append(row)
            finished, state = epoch, EpochState()
            say(_epoch_line(row, task.ranks_by, settings.epoch))
            path = run.save_epoch(snapshot(), task.ranks_by, settings.max_ckpt_save_num)
            if epoch < settings.epoch and _any_process(stop.made, runtime):
                _end_interrupted(path, f"epoch {epoch}", runtime)
    if average is not None:
        model.load_state_dict(tested.state_dict())
    run.close()
    return history


def overfit(
    task: Task,
    model: nn.Module,
    batch: tuple[Any, Any],
    settings: TrainSettings,
    runtime: Runtime,
    parameters: list[dict[str, Any]],
) -> float:
    """Train on one batch alone, at a constant rate, and say whether it is learned by heart.

    A network, a loss or a rate that cannot do that much cannot learn a data set either.

    Returns:
        The last loss over the first.
    """
    model = place(model, runtime).train()
    optimizer = make_optimizer(parameters, settings, runtime.device.type)
    make_schedule(optimizer, replace(settings, schedule="constant"), OVERFIT_STEPS, 0)
    inputs, targets = (to_device(part, runtime) for part in batch)
    say(f"Learning {len(inputs)} training images by heart")
    first = loss = None
    for step in range(1, OVERFIT_STEPS + 1):
        with runtime.autocast():
            mean, figures = loss_and_figures(task.loss(model, inputs, targets))
        optimizer.zero_grad(set_to_none=True)
        mean.backward()
        optimizer.step()
        loss = mean.item()
        first = loss if first is None else first
        learned = loss < OVERFIT_SHARE * first
        if learned or step in OVERFIT_SHOWN or not math.isfinite(loss):
            shown = "".join(f", {name} {as_text(value)}" for name, value in figures.items())
            say(f"Step {step:3d}: loss {loss:.4f}{shown}")
        if learned or not math.isfinite(loss):
            break
    if loss < OVERFIT_SHARE * first:
        say(f"It can learn: after {step} steps the loss is below a hundredth of the first")
    else:
        say("It has not learned them: try another --lr, or look for a fault in network and loss")
    return loss / first


def _take_up(
    resumed: dict[str, Any],
    model: nn.Module,
    optimizer: Optimizer,
    average: AveragedModel | None,
    settings: TrainSettings,
) -> tuple[EpochState, list[dict[str, Any]] | None]:
    """Load what a checkpoint holds of an optimizer and of weights that are averaged.

    Returns:
        How far the epoch after it has come, and what each process had of its own then, if any.
    """
    resume_optimizer(optimizer, resumed, settings)
    if "raw_state" in resumed:  # then the model came here with the average
        model.load_state_dict(resumed["raw_state"])
        if average is not None:
            average.n_averaged.fill_(resumed["averaged"])
    begun = resumed.get("epoch_state")
    if begun is None:
        return EpochState(), None
    # Once, runs of a single process alone were interrupted within an epoch.
    return EpochState.restore(begun), resumed.get("processes") or [resumed["rng_state"]]


def _check_worth_saving(networks: nn.Module, row: dict[str, Any], label: str) -> None:
    """Raise Diverged if an epoch has left weights or a validation loss that are not finite."""
    finite = [value.isfinite().all() for value in networks.state_dict().values()]
    if not torch.stack(finite).all():
        raise Diverged(f"the weights are no longer finite after {label}")
    if not math.isfinite(row.get("val_loss") or 0.0):
        raise Diverged(f"the validation loss is no longer finite after {label}")


def _way_out(task: Task, model: nn.Module, loader: DataLoader, run: Run, runtime: Runtime) -> str:
    """Say what to do about a diverged run: name the newest checkpoint whose loss is finite."""
    inputs, targets = (to_device(part, runtime) for part in next(iter(loader)))
    for path, weights in run.newest_weights():
        model.load_state_dict(weights)
        if loss_is_finite(task, model, inputs, targets, runtime):
            return f"lower --lr, then --resume {path}"
    return "no epoch of it is worth going on from: start anew with a lower --lr"


def _any_process(wish: bool, runtime: Runtime) -> bool:
    return bool(runtime.total(torch.tensor(float(wish), device=runtime.device)))


def _end_interrupted(path: Path, done: str, runtime: Runtime) -> None:
    runtime.wait_for_all()  # for the first process to have saved
    say(f"Saved {path} ({done}). Go on with: {command(Path(sys.argv[0]).name, '--resume', path)}")
    raise KeyboardInterrupt


def _epoch_line(row: dict[str, Any], ranks_by: str, epochs: int) -> str:
    figure = row.get(f"val_{ranks_by}")
    measured = ", not validated" if ranks_by else ""
    if figure is not None:
        measured = f", val {ranks_by} {as_text(figure)}"
    minutes, seconds = divmod(round(row["seconds"] * (epochs - row["epoch"])), 60)
    return (
        f"Epoch {row['epoch']:2d}/{epochs}: loss {row['loss']:.4f}{measured}, "
        f"{row['images_per_second']:,.0f} images/s, {minutes}:{seconds:02d} left"
    )
