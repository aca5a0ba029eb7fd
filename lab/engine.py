"""The loop: one epoch of training, one evaluation, and the run made of them.

`fit` trains any network on any loader of (images, labels): it resumes exactly, logs, validates,
saves and stops cleanly. The same code runs on a CPU, on a GPU and in every process of torchrun.
"""

import csv
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from lab import checkpoint
from lab.console import LabError, UsageError, progress, say
from lab.pictures import save_curves

LossFunction = Callable[[Tensor, Tensor], Tensor]
CHECK_EVERY = 50  # steps between two looks at the loss; each look waits for the device


# ---------------------------------------------------------------- devices, precision, processes


@dataclass(frozen=True)
class Runtime:
    """Where and how a script computes.

    Attributes:
        device: of the network and the batches.
        autocast_dtype: lower precision of the forward pass; None for float32 throughout.
        rank, world_size: this process among those of torchrun.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    rank: int = 0
    world_size: int = 1

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=enabled)

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values


def start(device: str | None, precision: str = "auto") -> Runtime:
    """Choose device and precision, and join the process group when torchrun started us.

    Args:
        device: cpu, cuda or None for cuda where there is one.
        precision: fp32, bf16 or auto: bf16 where the processor computes in it.

    Raises:
        LabError: cuda asked for, but there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise LabError("--device cuda: this machine has no CUDA device; leave the flag out for cpu")
    kind = device or ("cuda" if torch.cuda.is_available() else "cpu")
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    chosen = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0)) if kind == "cuda" else None)
    if kind == "cuda":
        torch.cuda.set_device(chosen)
    if world_size > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if kind == "cuda" else "gloo")
    bf16 = precision == "bf16" or (precision == "auto" and computes_bf16(kind))
    return Runtime(chosen, torch.bfloat16 if bf16 else None, rank, world_size)


def computes_bf16(kind: str) -> bool:
    """True where the processor has bf16 arithmetic, not only a way to emulate it."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))


# ---------------------------------------------------------------- optimizers and schedules

OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adagrad": torch.optim.Adagrad,
    "rmsprop": torch.optim.RMSprop,
    "adadelta": torch.optim.Adadelta,
    "adamw": torch.optim.AdamW,
}
FUSED = ("sgd", "adam", "adagrad", "adamw")  # those torch has one-kernel updates for


@dataclass(frozen=True)
class TrainSettings:
    """How to train; saved in every checkpoint, so that a run resumes with its own settings.

    `epoch` is the total, also of a resumed run; `lr` is the peak where the schedule varies it.
    """

    epoch: int = 10
    batch_size: int = 32
    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    optim_type: str = "adam"
    schedule: str = "constant"
    label_smoothing: float = 0.0
    augment: bool = False
    freeze: bool = False
    val_interval: int = 1
    max_ckpt_save_num: int = 10
    precision: str = "auto"
    seed: int = 0
    num_workers: int = 0


def make_optimizer(parameters, settings: TrainSettings, device: str) -> torch.optim.Optimizer:
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
    optimizer = OPTIMIZERS[settings.optim_type](parameters, **options)
    set_learning_rate(optimizer, settings.lr)
    return optimizer


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of a constant learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] = rate * group.get("lr_scale", 1.0)


def resume_optimizer(
    optimizer: torch.optim.Optimizer, resumed: dict[str, Any], settings: TrainSettings
) -> None:
    """Load an optimizer's state from a checkpoint; learning rate and penalty may be new ones.

    Raises:
        LabError: the checkpoint has none, or one of another optimizer.
    """
    state = resumed.get("optimizer_state", {"param_groups": [{}]})
    made_by = resumed.get("settings", {}).get("optim_type", settings.optim_type)
    missing = set(optimizer.defaults) - set(state["param_groups"][0])
    if made_by != settings.optim_type or missing - {"fused", "foreach", "decoupled_weight_decay"}:
        raise LabError(
            f"the checkpoint holds no state of --optim_type {settings.optim_type}; "
            "go on with the optimizer that made it"
        )
    optimizer.load_state_dict(state)
    for group in optimizer.param_groups:
        group["weight_decay"] = settings.weight_decay
    if settings.schedule == "constant":
        set_learning_rate(optimizer, settings.lr)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, steps_an_epoch: int, done: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate's course, stepped once a batch, after `done` batches."""
    if settings.schedule == "constant":
        return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    total = settings.epoch * steps_an_epoch
    peaks = [settings.lr * group.get("lr_scale", 1.0) for group in optimizer.param_groups]
    # Momentum stays: cycling it gained nothing here, and not every optimizer has one.
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, peaks, total, cycle_momentum=False, last_epoch=done - 1
    )


# ---------------------------------------------------------------- one epoch, one evaluation


class StopRequest:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop after the step at hand."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.made = False

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.made:
            raise KeyboardInterrupt
        self.made = True
        say("\nStopping after this step (once more to stop at once) ...")


@dataclass
class EpochState:
    """How far an epoch has come: what is added up, and what a resumed epoch goes on from."""

    step: int = 0  # batches done
    loss_sum: float = 0.0  # over images
    images: int = 0
    trained: int = 0  # images since this process took the epoch up
    seconds: float = 0.0  # likewise

    @property
    def loss(self) -> float:
        return self.loss_sum / max(1, self.images)


def train_one_epoch(
    model: nn.Module,
    loss_function: LossFunction,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    runtime: Runtime,
    state: EpochState,
    stop: StopRequest | None = None,
    label: str = "",
) -> None:
    """Train on the batches of `loader` that remain of an epoch, adding to `state`.

    Nothing waits for the device within a step. When a stop is asked for, it returns early.

    Raises:
        LabError: the loss is no longer finite; names the first such step.
    """
    # A frozen body stays as it is, batch norm's statistics as well; the one layer that is trained
    # on it, linear or a convolution, does the same in either mode.
    model.train(all(parameter.requires_grad for parameter in model.parameters()))
    began, trained = time.perf_counter(), 0
    # On the device: the loss summed over images, and the first step whose loss was not finite.
    loss_sum = torch.zeros((), dtype=torch.float64, device=runtime.device)
    bad_step = torch.zeros((), dtype=torch.int64, device=runtime.device)
    bar = progress(loader, total=len(loader) - state.step, label=label)
    for images, labels in bar:
        images, labels = to_device(images, labels, runtime)
        count = len(labels)
        share = 1.0
        if runtime.world_size > 1:
            # DDP averages the processes' gradients; weighting each by its share of the batch
            # makes that the gradient of the whole batch's mean.
            share = torch.tensor(float(count), device=runtime.device)
            share = count * runtime.world_size / runtime.total(share)
        with runtime.autocast():
            loss = loss_function(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        (loss * share).backward()
        optimizer.step()
        schedule.step()

        state.step += 1
        trained += count
        detached = loss.detach()
        loss_sum += detached * count
        first_bad = (bad_step == 0) & ~detached.isfinite()
        bad_step = torch.where(first_bad, state.step, bad_step)
        if state.step % CHECK_EVERY == 0:
            _check_finite(bad_step, label)
            bar.set_postfix_str(f"loss {detached.item():.3f}", refresh=False)
        if stop is not None and stop.made:
            break
    if runtime.world_size > 1:
        bad_step = runtime.total(bad_step)
    _check_finite(bad_step, label)
    sums = torch.stack([loss_sum, loss_sum.new_tensor(trained)])
    loss_total, trained_total = runtime.total(sums).tolist()
    state.trained = int(trained_total)
    state.loss_sum += loss_total
    state.images += state.trained
    state.seconds = time.perf_counter() - began


def _check_finite(bad_step: Tensor, label: str) -> None:
    if step := int(bad_step):
        raise LabError(
            f"the loss is no longer finite since step {step} of {label or 'the epoch'}; "
            "lower --lr, then --resume the last checkpoint"
        )


@dataclass(frozen=True)
class Evaluation:
    """What a network makes of a split.

    Attributes:
        loss: mean over images; NaN without a loss function.
        accuracy: share of images whose highest logit is their label's.
        labels, predictions: int64 (N,), of this process's share of the images, on the CPU.
        seconds: wall-clock time.
    """

    loss: float
    accuracy: float
    labels: Tensor = field(repr=False)
    predictions: Tensor = field(repr=False)
    seconds: float = 0.0


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: DataLoader,
    runtime: Runtime,
    loss_function: LossFunction | None = None,
    label: str = "",
) -> Evaluation:
    """Run a network over a split, in evaluation mode."""
    model.eval()
    began = time.perf_counter()
    all_labels, all_predictions = [], []
    loss_sum = torch.zeros((), dtype=torch.float64, device=runtime.device)
    for images, labels in progress(loader, label=label):
        images, labels = to_device(images, labels, runtime)
        with runtime.autocast():
            logits = model(images).float()
        if loss_function is not None:
            loss_sum += loss_function(logits, labels) * len(labels)
        all_labels.append(labels)
        all_predictions.append(logits.argmax(1))
    if not all_labels:
        all_labels = all_predictions = [torch.zeros(0, dtype=torch.int64, device=runtime.device)]
    labels, predictions = torch.cat(all_labels), torch.cat(all_predictions)
    correct = (labels == predictions).sum()
    sums = torch.stack([loss_sum, correct.double(), loss_sum.new_tensor(len(labels))])
    loss_total, correct_total, count = runtime.total(sums).tolist()
    return Evaluation(
        loss=loss_total / count if loss_function is not None else math.nan,
        accuracy=correct_total / count,
        labels=labels.cpu(),
        predictions=predictions.cpu(),
        seconds=time.perf_counter() - began,
    )


def to_device(images: Tensor, labels: Tensor, runtime: Runtime) -> tuple[Tensor, Tensor]:
    """Bring a batch to the device in the layout convolutions are fastest in."""
    images = images.to(runtime.device, memory_format=torch.channels_last, non_blocking=True)
    return images, labels.to(runtime.device, non_blocking=True)


# ---------------------------------------------------------------- a run


def fit(
    model: nn.Module,
    loss_function: LossFunction,
    train_loader: DataLoader,
    val_loader: DataLoader | None,
    settings: TrainSettings,
    runtime: Runtime,
    folder: Path,
    identity: dict[str, Any],
    resumed: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> list[dict[str, float]]:
    """Train `model` up to `settings.epoch` epochs, with a checkpoint and a log line after each.

    Args:
        model: on the CPU or the device; trained in place.
        val_loader: None where there is no accuracy to measure.
        folder: of the run; gets checkpoints, metrics.csv, loss_and_acc.jpg, TensorBoard events.
        identity: what every checkpoint holds besides the state: configs, class names and so on.
        resumed: the loaded checkpoint to go on from.
        parameters: groups of `model`'s parameters to train, as `make_optimizer` takes them; all
            of them if None.

    Returns:
        The history: a row an epoch, as in metrics.csv.

    Raises:
        LabError: a non-finite loss, or a checkpoint that cannot be saved.
        KeyboardInterrupt: stopped by Ctrl-C, after saving.
    """
    model = model.to(runtime.device, memory_format=torch.channels_last)
    parameters = parameters or list(model.parameters())
    optimizer = make_optimizer(parameters, settings, runtime.device.type)
    history, epoch_state, rng_state, finished = [], EpochState(), None, 0
    if resumed is not None:
        resume_optimizer(optimizer, resumed, settings)
        finished, history = resumed["epoch"], list(resumed.get("history", []))
        if progress_made := resumed.get("epoch_state"):
            epoch_state, rng_state = EpochState(**progress_made), resumed["rng_state"]
    steps_an_epoch = len(train_loader)
    schedule = make_schedule(
        optimizer, settings, steps_an_epoch, finished * steps_an_epoch + epoch_state.step
    )

    trained = model
    if runtime.world_size > 1:
        if runtime.device.type == "cuda":
            model = trained = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        trained = DistributedDataParallel(model, broadcast_buffers=False)

    def snapshot(**more: Any) -> dict[str, Any]:
        return {
            "model_state": model.state_dict(),
            "optimizer_state": optimizer.state_dict(),
            **identity,
            "settings": asdict(settings),
            "epoch": finished,
            "best_epoch": best_epoch(history),
            "history": history,
            **more,
        }

    log = EventLog(folder, finished) if runtime.rank == 0 else None
    with StopRequest() as stop:
        for epoch in range(finished + 1, settings.epoch + 1):
            label = f"epoch {epoch}/{settings.epoch}"
            train_loader.batch_sampler.epoch = epoch
            train_loader.batch_sampler.start = epoch_state.step
            seed_epoch(settings.seed, epoch, runtime.rank)
            if rng_state is not None:
                restore_rng(rng_state)
                rng_state = None
            began = time.perf_counter()
            # Under torchrun the processes cannot agree on a step to stop at without waiting for
            # one another at each, so there a stop takes effect between epochs.
            heeded = stop if runtime.world_size == 1 else None
            train_one_epoch(
                trained, loss_function, train_loader, optimizer, schedule, runtime, epoch_state,
                heeded, label,
            )  # fmt: skip
            if epoch_state.step < steps_an_epoch:
                path = folder / checkpoint.INTERRUPTED
                saved = asdict(epoch_state) | {"trained": 0, "seconds": 0.0}
                checkpoint.save(path, snapshot(epoch_state=saved, rng_state=rng_states()))
                done = f"epoch {epoch}, after {epoch_state.step} of {steps_an_epoch} batches"
                _end_interrupted(path, done)

            row = {"epoch": epoch, "loss": epoch_state.loss, "val_loss": None, "val_accuracy": None}
            average_buffers(model, runtime)
            due = epoch % settings.val_interval == 0 or epoch == settings.epoch
            if val_loader is not None and due:
                validation = evaluate(model, val_loader, runtime, loss_function, "validating")
                row |= {"val_loss": validation.loss, "val_accuracy": validation.accuracy}
            seconds = time.perf_counter() - began
            row |= {
                "learning_rate": optimizer.param_groups[0]["lr"],
                "images_per_second": epoch_state.trained / epoch_state.seconds,
                "seconds": seconds,
            }
            history.append(row)
            finished, epoch_state = epoch, EpochState()
            say(_epoch_line(row, settings.epoch, seconds * (settings.epoch - epoch)))
            if runtime.rank == 0:
                path = folder / f"ckpt_epoch_{epoch}.pth"
                checkpoint.save(path, snapshot())
                (folder / checkpoint.INTERRUPTED).unlink(missing_ok=True)
                checkpoint.rotate(folder, settings.max_ckpt_save_num, best_epoch(history))
                write_metrics(folder / "metrics.csv", history)
                save_curves(folder / "loss_and_acc.jpg", history)
                log.add(row)
            if stop.made and epoch < settings.epoch:
                _end_interrupted(folder / f"ckpt_epoch_{epoch}.pth", f"epoch {epoch}")
    if log is not None:
        log.close()
    return history


def _end_interrupted(path: Path, done: str) -> None:
    script = Path(sys.argv[0]).name
    say(f"Saved {path} ({done}). Go on with: python {script} --resume {path}")
    raise KeyboardInterrupt


def _epoch_line(row: dict[str, float], epochs: int, seconds_left: float) -> str:
    accuracy = "not validated"
    if row["val_accuracy"] is not None:
        accuracy = f"val accuracy {row['val_accuracy']:.2%}"
    minutes, seconds = divmod(round(seconds_left), 60)
    return (
        f"Epoch {row['epoch']:2d}/{epochs}: loss {row['loss']:.4f}, {accuracy}, "
        f"{row['images_per_second']:,.0f} images/s, {minutes}:{seconds:02d} left"
    )


def best_epoch(history: list[dict[str, float]]) -> int | None:
    """Return the epoch of the highest validation accuracy; of equals, that of the lowest loss."""
    validated = [row for row in history if row["val_accuracy"] is not None]
    best = max(validated, key=lambda row: (row["val_accuracy"], -row["val_loss"]), default=None)
    return best and best["epoch"]


def write_metrics(path: Path, history: list[dict[str, float]]) -> None:
    """Write a row an epoch; all anew each time, so that a resumed run repeats none."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", newline="") as file:
            table = csv.DictWriter(file, history[-1])
            table.writeheader()
            table.writerows(history)
        partial.replace(path)
    except OSError as error:
        raise LabError(f"could not write {path}: {error.strerror}") from error


class EventLog:
    """TensorBoard events of a run; rows after the epoch resumed from are struck."""

    def __init__(self, folder: Path, finished: int):
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=finished + 1 if finished else None)

    def add(self, row: dict[str, float]) -> None:
        """Write an epoch's row, one curve a column."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self.writer.add_scalar(name, value, row["epoch"])
        self.writer.flush()

    def close(self) -> None:
        """Finish the event file."""
        self.writer.close()


# ---------------------------------------------------------------- reproducibility, processes


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seed dropout for an epoch, so that a resumed one draws as the uninterrupted one would."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def rng_states() -> dict[str, Tensor]:
    """Return the state of the generators that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_rng(states: dict[str, Tensor]) -> None:
    """Put the generators into the states that `rng_states` returned."""
    torch.set_rng_state(states["cpu"].cpu())
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


def average_buffers(model: nn.Module, runtime: Runtime) -> None:
    """Give every process the mean of the batch norms' running statistics after training."""
    if runtime.world_size > 1 and model.training:  # a frozen body's were not touched
        for buffer in model.buffers():
            if buffer.is_floating_point():
                runtime.total(buffer).div_(runtime.world_size)


def check_batch_size(batch_size: int, world_size: int, normalises: bool) -> None:
    """Raise a UsageError unless every process gets enough images a batch."""
    needed = world_size * (2 if normalises else 1)
    if batch_size < needed:
        why = "batch norm needs 2 images a process" if normalises else "each process needs an image"
        raise UsageError(f"--batch_size {batch_size} is too small: {why}, so at least {needed}")


def wait_for_all(runtime: Runtime) -> None:
    """Return when every process has come here."""
    if runtime.world_size > 1:
        dist.barrier()
