"""The loop: one epoch of training, one evaluation, and the sequence of them.

    learner = Learner(objective, network, settings, runtime)
    history = fit(learner, train_loader, val_loader, run, identity)

`fit` trains any network on any `Objective`: it resumes exactly, validates, saves and stops cleanly.
The same code runs on a CPU, on a GPU and in every process of torchrun.
"""

import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lab.console import LabError, as_text, command, counted, progress, say
from lab.learner import Learner
from lab.objective import Meter, Objective, Sums
from lab.run import Run, best_epoch
from lab.runtime import (
    Runtime,
    average_buffers,
    process_states,
    restore_process,
    seed_epoch,
    to_device,
    upload,
)
from lab.settings import TrainSettings

CHECK_EVERY = 50  # steps between two looks at the loss; each look waits for the device
AGREE_EVERY = 16  # steps between two looks, on a GPU, at whether another process is to stop
NEVER = 2**62  # a step that no training comes to
OVERFIT_STEPS, OVERFIT_SHARE = 200, 0.01  # at most; of the first loss, for a batch to be learned
OVERFIT_SHOWN = (1, 2, 5, 10, 20, 50, 100, 200)

History = list[dict[str, Any]]  # a row an epoch, as in metrics.csv


class Diverged(LabError):
    """Numbers of a training are no longer finite."""


# ---------------------------------------------------------------- one epoch


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the step at hand."""

    def __init__(self, runtime: Runtime) -> None:
        self.made = False
        # To its processes torchrun passes on what the terminal has sent them already, and ends
        # those that take too long.
        self.once_more_ends = runtime.world_size == 1

    def __enter__(self) -> Self:
        signals = (signal.SIGINT, signal.SIGTERM)
        self._previous = {number: signal.signal(number, self._note) for number in signals}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.made and self.once_more_ends:
            raise KeyboardInterrupt
        if not self.made:
            self.made = True
            say("\nStopping after this step (once more to stop at once) ...")


@dataclass
class EpochState:
    """How far an epoch has come: what is added up, and what a resumed epoch goes on from."""

    images: int = 0  # inputs done, over all processes
    sums: dict[str, float] = field(default_factory=dict)  # of the loss and its figures, over inputs
    trained: int = 0  # images since this process took the epoch up
    seconds: float = 0.0  # likewise

    def means(self) -> dict[str, float]:
        """Return the loss and the figures beside it, means over the inputs."""
        return {name: value / max(1, self.images) for name, value in self.sums.items()}

    def add(self, sums: dict[str, float], images: int) -> None:
        """Add sums over so many images; figures that an earlier part lacks are left out."""
        names = self.sums if self.images else sums
        self.sums = {name: sums[name] + self.sums.get(name, 0.0) for name in sums if name in names}
        self.images += images
        self.trained = images


class Tally:
    """What the steps of an epoch add up to; until somebody asks, no step waits for it.

    Attributes:
        sums: over the inputs of this process; of fp16, only of losses that it can hold.
        counted: those inputs, of `inputs` in all.
        bad_step: the first step of this process whose loss is not finite.
    """

    def __init__(self, runtime: Runtime):
        self.runtime, self.names, self.bad_step = runtime, ("loss",), NEVER
        self.sums, self.inputs, self.counted = Sums(), 0, 0
        self._kept: list[tuple[int, int, Tensor]] = []

    def add(self, step: int, count: int, loss: Tensor, figures: dict[str, Tensor]) -> None:
        """Add the means over a step's inputs."""
        self.names = ("loss", *figures)
        self._kept.append((step, count, torch.stack([loss, *figures.values()])))

    def _read(self) -> None:
        """Add up what is still on the device."""
        means = [means for *_, means in self._kept]
        rows = torch.stack(means).cpu().tolist() if means else []
        for (step, count, _), row in zip(self._kept, rows, strict=True):
            self.inputs += count
            if not math.isfinite(row[0]):
                self.bad_step = min(self.bad_step, step)
                if self.runtime.scales:
                    continue
            self.counted += count
            self.sums.add_row(row, count)
        self._kept = []

    def check(self, label: str, can_go_on: Callable[[], bool] | None = None) -> None:
        """Raise Diverged once the loss of a step, in any process, was not finite.

        Args:
            can_go_on: asked whether it was fp16 alone that could not hold the loss.
        """
        self._read()
        bad_step = torch.tensor(self.bad_step, device=self.runtime.device)
        if (step := int(self.runtime.least(bad_step))) < NEVER:
            if not self.runtime.scales or can_go_on is None or not can_go_on():
                raise Diverged(f"the loss is no longer finite since step {step} of {label}")
            self.bad_step = NEVER

    def totals(self) -> tuple[dict[str, float], int]:
        """Return sums over the inputs of all processes, and their number."""
        self._read()
        sums = self.sums.now() or [0.0] * len(self.names)
        *sums, counted, inputs = self.runtime.totals(*sums, self.counted, self.inputs)
        every = inputs / counted if counted else math.nan  # of fp16, some were not added
        sums = [total * every for total in sums]
        return dict(zip(self.names, sums, strict=True)), int(inputs)


def train_one_epoch(
    learner: Learner,
    loader: DataLoader,
    state: EpochState,
    stop: StopRequest | None = None,
    label: str = "the epoch",
) -> bool:
    """Train on what `loader` still has of an epoch, adding to `state`.

    On a GPU nothing waits for the device within a step. What the last step has come to is seen by
    the loss after it.

    Args:
        stop: heeded after the step at hand, in all processes after the same one.

    Returns:
        Whether the epoch is done, not stopped.

    Raises:
        Diverged: the loss is no longer finite; names the first such step.
    """
    runtime, began, stopped = learner.runtime, time.perf_counter(), False
    tally = Tally(runtime)
    agree_every = AGREE_EVERY if runtime.device.type == "cuda" else 1
    learner.train()
    bar = progress(loader, total=loader.batch_sampler.batches_left(state.images), label=label)
    for step, batch in enumerate(bar, 1):
        runtime.take_free_threads()
        inputs, targets = to_device(batch, runtime)
        count, share = len(inputs), None
        if runtime.world_size > 1:
            # DDP averages the processes' gradients; weighting each by its share of the batch
            # makes that the gradient of the whole batch's mean.
            wish = stop is not None and stop.made
            wishes = upload(torch.tensor([float(count), float(wish)]), runtime.device)
            total, wish = runtime.total(wishes)
            share = count * runtime.world_size / total
        loss, figures = learner.step(inputs, targets, share)
        tally.add(step, count, loss, figures)
        if step % CHECK_EVERY == 0:
            learner.check_scale()
            tally.check(label, partial(learner.all_can_go_on, inputs, targets))
            bar.set_postfix_str(f"loss {loss.item():.3f}", refresh=False)
        if runtime.world_size > 1:
            stopped = step % agree_every == 0 and bool(wish)
        else:
            stopped = stop is not None and stop.made
        if stopped:
            break
    tally.check(label, partial(learner.all_can_go_on, inputs, targets))
    if not stopped:
        if not learner.loss_is_finite(inputs, targets):
            tally.bad_step = step
        tally.check(label)
    state.add(*tally.totals())
    state.seconds = time.perf_counter() - began
    return not stopped


# ---------------------------------------------------------------- one evaluation


@torch.inference_mode()
def evaluate(
    network: nn.Module, meter: Meter, loader: Iterable, runtime: Runtime, label: str = ""
) -> dict[str, float]:
    """Show a meter a network, in evaluation mode, and a split; return the figures."""
    network.eval()
    for inputs, targets in progress(loader, label=label):
        runtime.take_free_threads()
        with runtime.autocast():
            meter.update(network, to_device(inputs, runtime), to_device(targets, runtime))
    return meter.compute(runtime)


# ---------------------------------------------------------------- a run


def fit(
    learner: Learner,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    run: Run,
    identity: dict[str, Any],
    resumed: dict[str, Any] | None = None,
    beside: Mapping[str, Iterable] | None = None,
) -> History:
    """Train up to `settings.epoch` epochs, with a checkpoint and a log line after each.

    Args:
        learner: has loaded `resumed`; its network ends with the weights that are tested.
        val_loader: None where there is nothing to measure.
        identity: what every checkpoint holds besides the state: configs, class names and so on.
        resumed: the loaded checkpoint to go on from.
        beside: what else is measured when val is, by the names that its figures begin with.

    Raises:
        Diverged: numbers that are no longer finite, in all processes.
        LabError: a checkpoint that cannot be saved.
        KeyboardInterrupt: stopped by Ctrl-C, after saving.
    """
    settings, runtime = learner.settings, learner.runtime
    finished, history, state, processes = _take_up(resumed)
    sampler = train_loader.batch_sampler
    # An epoch that another batch size began counts as if this one had: the end is what counts.
    behind = (finished + 1) * len(sampler) - sampler.batches_left(state.images)
    learner.begin(settings.epoch * len(sampler), behind)
    state_of = partial(_snapshot, learner, identity, history)
    with StopRequest(runtime) as stop:
        for epoch in range(finished + 1, settings.epoch + 1):
            label, began = f"epoch {epoch}/{settings.epoch}", time.perf_counter()
            sampler.epoch, sampler.start = epoch, state.images
            seed_epoch(settings.seed, epoch, runtime.rank)
            restore_process(processes, learner.networks, runtime)
            try:
                whole = train_one_epoch(learner, train_loader, state, stop, label)
                if not whole and sampler.batches_left(state.images):
                    begun = {
                        "epoch_state": {"images": state.images, "sums": state.sums},
                        "processes": process_states(learner.networks, runtime),
                    }
                    path = run.save_interrupted(state_of(epoch - 1) | begun)
                    done = f"epoch {epoch}, {state.images:,} of {sampler.count:,} images"
                    _end_interrupted(path, done, runtime)
                row = _measure(learner, val_loader, epoch, state, label, beside or {})
            except Diverged as error:
                raise Diverged(f"{error}; {_way_out(learner, train_loader, run)}") from error
            history.append(row | {"seconds": time.perf_counter() - began})
            ranks_by = learner.objective.ranks_by
            say(_epoch_line(history[-1], ranks_by, settings.epoch))
            path = run.save_epoch(state_of(epoch), settings.max_ckpt_save_num, ranks_by)
            state, processes = EpochState(), []
            stopped = runtime.total(torch.tensor(float(stop.made), device=runtime.device))
            if stopped and epoch < settings.epoch:
                _end_interrupted(path, f"epoch {epoch}", runtime)
    learner.finish()
    run.close()
    return history


def _take_up(
    resumed: dict[str, Any] | None,
) -> tuple[int, History, EpochState, list[dict[str, Any]]]:
    """Return where a run goes on that has the content of a checkpoint behind it.

    Returns:
        The epochs that are done, their history, how far the epoch after them has come, and what
        each process had of its own then.
    """
    if resumed is None:
        return 0, [], EpochState(), []
    state, processes = EpochState(), []
    if begun := resumed.get("epoch_state"):
        # Once, the loss alone was added up, and runs of a single process alone were interrupted.
        state = EpochState(begun["images"], begun.get("sums") or {"loss": begun["loss_sum"]})
        processes = resumed.get("processes") or [resumed["rng_state"]]
    return resumed["epoch"], list(resumed.get("history", [])), state, processes


def _snapshot(
    learner: Learner, identity: dict[str, Any], history: History, epoch: int
) -> dict[str, Any]:
    """Return a checkpoint of a run whose last finished epoch this is."""
    settings = learner.settings
    return {
        **learner.state(),
        **identity,
        "settings": asdict(settings),
        "epoch": epoch,
        "best_epoch": best_epoch(history, learner.objective.ranks_by, settings.schedule),
        "history": history,
    }


def _measure(
    learner: Learner, val_loader: DataLoader | None, epoch: int, state: EpochState, label: str,
    beside: Mapping[str, Iterable],
) -> dict[str, Any]:  # fmt: skip
    """Return a finished epoch's figures; raise Diverged if they, or weights, are not finite."""
    settings, runtime = learner.settings, learner.runtime
    if not learner.has_frozen_body:
        average_buffers(learner.networks, runtime)
    row = {"epoch": epoch, **state.means()}
    if runtime.scales:
        learner.check_scale()
        row["skipped_steps"] = learner.take_skipped()
    due = epoch % settings.val_interval == 0 or epoch == settings.epoch
    if val_loader is not None and due:
        meter = learner.objective.meter()
        figures = evaluate(learner.tested, meter, val_loader, runtime, "validating")
        if runtime.scales and not math.isfinite(figures.get("loss", 0.0)):
            meter = learner.objective.meter()
            figures = evaluate(learner.tested, meter, val_loader, runtime.in_fp32, "validating")
        row |= {f"val_{name}": value for name, value in figures.items()}
    for whence, loader in beside.items() if due else ():
        # Every process measures all of it: it is not dealt out, nor added up.
        alone = replace(runtime, rank=0, world_size=1)
        figures = evaluate(learner.tested, learner.objective.meter(), loader, alone, whence)
        row |= {f"{whence}_{name}": value for name, value in figures.items()}
    finite = [value.isfinite().all() for value in learner.networks.state_dict().values()]
    if not torch.stack(finite).all():
        raise Diverged(f"the weights are no longer finite after {label}")
    if not math.isfinite(row.get("val_loss") or 0.0):
        raise Diverged(f"the validation loss is no longer finite after {label}")
    speed = state.trained / state.seconds
    return row | {"learning_rate": learner.rate, "images_per_second": speed}


def _way_out(learner: Learner, loader: DataLoader, run: Run) -> str:
    """Say what to do about a diverged run: name the newest checkpoint whose loss is finite."""
    inputs, targets = to_device(next(iter(loader)), learner.runtime)
    for path, weights in run.newest_weights():
        learner.network.load_state_dict(weights)
        if learner.loss_is_finite(inputs, targets):
            return f"lower --lr, then --resume {path}"
    return "no epoch of it is worth going on from: start anew with a lower --lr"


def _end_interrupted(path: Path, done: str, runtime: Runtime) -> None:
    runtime.wait_for_all()  # for the first process to have saved
    say(f"Saved {path} ({done}). Go on with: {command(Path(sys.argv[0]).name, '--resume', path)}")
    raise KeyboardInterrupt


def _epoch_line(row: dict[str, Any], ranks_by: str, epochs: int) -> str:
    figure = row.get(f"val_{ranks_by}")
    measured = ", not validated" if ranks_by else ""
    if figure is not None:
        measured = f", val {ranks_by} {as_text(figure)}"
    for name, value in row.items():
        if name.startswith("also_") and name.endswith(f"_{ranks_by}"):
            whence = name.removeprefix("also_").removesuffix(f"_{ranks_by}")
            measured += f", {whence} {as_text(value)}"
    if skipped := row.get("skipped_steps"):
        measured += f", {counted(skipped, 'steps')} skipped (fp16)"
    minutes, seconds = divmod(round(row["seconds"] * (epochs - row["epoch"])), 60)
    return (
        f"Epoch {row['epoch']:2d}/{epochs}: loss {row['loss']:.4f}{measured}, "
        f"{row['images_per_second']:,.0f} images/s, {minutes}:{seconds:02d} left"
    )


# ---------------------------------------------------------------- one batch, by heart


def overfit(
    objective: Objective,
    network: nn.Module,
    batch: tuple[Any, Any],
    settings: TrainSettings,
    runtime: Runtime,
    parameters: list[dict[str, Any]] | None = None,
) -> float:
    """Train on one batch alone, at a constant rate, and say whether it is learned by heart.

    A network, a loss or a rate that cannot do that much cannot learn a data set either.

    Returns:
        The last loss over the first.
    """
    settings = replace(settings, schedule="constant", ema=0.0, clip_norm=0.0)
    learner = Learner(objective, network, settings, runtime, parameters).begin(OVERFIT_STEPS)
    learner.train()
    inputs, targets = to_device(batch, runtime)
    say(f"Learning {len(inputs)} training images by heart")
    losses, learned = [], False
    for step in range(1, OVERFIT_STEPS + 1):
        loss, figures = learner.step(inputs, targets)
        if runtime.scales and not loss.isfinite():
            continue  # a step that was skipped
        losses.append(loss.item())
        learned = losses[-1] < OVERFIT_SHARE * losses[0]
        over = learned or not math.isfinite(losses[-1])
        if over or step in OVERFIT_SHOWN:
            shown = "".join(
                f", {name} {as_text(value) if name == 'accuracy' else f'{value:.4g}'}"
                for name, value in figures.items()
            )  # others are losses, no shares
            say(f"Step {step:3d}: loss {losses[-1]:.4f}{shown}")
        if over:
            break
    if learned:
        done = counted(step, "steps")
        say(f"It can learn: after {done} the loss is below a hundredth of the first")
    else:
        say("It has not learned them: try another --lr, or look for a fault in network and loss")
    return losses[-1] / losses[0] if losses else math.nan
