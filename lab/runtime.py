"""Where a script computes: device, precision, processes, and what each of them has of its own."""

import contextlib
import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lab.console import LabError, UsageError, process_rank, say

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SOON, LATE = 0.3, 5.0  # seconds from one look to the next: after a change, and at the most
TICK = 0.01  # seconds, in which /proc/stat counts (USER_HZ)
SPARE = 0.25  # of a core that others may use before it counts as theirs
# Of processes with the first one, which draws or downloads what is missing: nccl's own 10 minutes
# are about what 3,500 streets take one core. Where one has died, torchrun ends the others at once.
PATIENCE = timedelta(hours=1)
NAMES = {"cuda": "CUDA device", "mps": "Apple GPU"}
AVAILABLE = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}


def seconds_taken() -> tuple[float, float] | None:
    """Return the seconds that cores have computed so far, for all and for this process.

    None where the system does not say, as Linux does.
    """
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_bytes().split()[1:9]]
    except OSError:
        return None
    user, nice, system, _, _, *interrupts_and_stolen = ticks
    busy = user + nice + system + sum(interrupts_and_stolen)
    return busy * TICK, time.process_time()


@dataclass
class Looks:
    """How many cores others keep busy, looked at now and then."""

    last: float = field(default_factory=time.monotonic)
    taken: tuple[float, float] | None = field(default_factory=seconds_taken)  # then
    pause: float = SOON  # until the next one

    def due(self) -> bool:
        return self.taken is not None and time.monotonic() >= self.last + self.pause

    def others(self) -> float:
        """Return how many cores others have kept busy since the last look."""
        (all_before, own_before), before = self.taken, self.last
        self.taken, self.last = seconds_taken(), time.monotonic()
        all_now, own_now = self.taken
        others = (all_now - all_before) - (own_now - own_before)
        return max(0.0, others) / (self.last - before)

    def note(self, changed: bool) -> None:
        """Note whether what the last look showed has changed something."""
        self.pause = SOON if changed else min(LATE, 2 * self.pause)


_looks = Looks()


@dataclass(frozen=True)
class Runtime:
    """Where and how a script computes."""

    device: torch.device  # of the network and the batches
    autocast_dtype: torch.dtype | None = None  # of the forward pass; None for float32 throughout
    rank: int = 0  # of this process among those of torchrun
    world_size: int = 1  # number of those
    threads: int = 1  # that a CPU may compute with; 1 where their number is fixed

    @property
    def precision(self) -> str:
        """The name of the forward pass's precision."""
        return next(name for name, dtype in PRECISIONS.items() if dtype == self.autocast_dtype)

    @property
    def scales(self) -> bool:
        """Whether small gradients vanish in the precision, so that losses have to be scaled."""
        return self.autocast_dtype == torch.float16

    @property
    def in_fp32(self) -> Self:
        """The same device in float32 throughout."""
        return replace(self, autocast_dtype=None)

    def autocast(self) -> torch.autocast:
        """Return the context of a forward pass."""
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.device.type, self.autocast_dtype, enabled=enabled)

    def take_free_threads(self) -> None:
        """Compute with as many threads as others leave cores to.

        Threads that compute together wait for the last of them: where another process is at one's
        core, for all of its time slice, at every operation. Two were then ten times as slow as one.
        Called as often as one likes, this looks soon after a change, and the longer nothing changes
        the less often; where the system does not say who is at its cores, never.
        """
        if self.threads == 1 or not _looks.due():
            return
        before, free = torch.get_num_threads(), (os.cpu_count() or 1) - _looks.others()
        count = max(1, min(self.threads, int(free + SPARE)))
        torch.set_num_threads(count)
        _looks.note(count != before)
        if count != before:
            busy = "; others keep cores busy" if count < self.threads else ""
            say(f"Computing with {count} of {self.threads} threads{busy}")

    def total(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all processes."""
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def totals(self, *numbers: float) -> list[float]:
        """Return sums of numbers over all processes."""
        if self.world_size == 1:
            return list(numbers)
        # Several processes compute on CPUs or on CUDA devices, which know float64.
        return self.total(torch.tensor(numbers, dtype=torch.float64, device=self.device)).tolist()

    def least(self, values: Tensor) -> Tensor:
        """Return the smallest of each value over all processes."""
        if self.world_size > 1:
            dist.all_reduce(values, dist.ReduceOp.MIN)
        return values

    def gather(self, part: Any) -> list[Any]:
        """Return what each process has of something that can be pickled, in the order of ranks."""
        parts = [part] * self.world_size
        if self.world_size > 1:
            dist.all_gather_object(parts, part)
        return parts

    def wait_for_device(self) -> None:
        """Return when the device has done all that it was asked for."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()

    def wait_for_all(self) -> None:
        """Return when every process has come here."""
        if self.world_size > 1:
            dist.barrier()

    def close(self) -> None:
        """Leave the process group."""
        if self.world_size > 1:
            dist.destroy_process_group()


def start(device: str | None, precision: str = "auto") -> Runtime:
    """Choose device and precision, and join the process group when torchrun started us.

    Args:
        device: cpu, cuda, mps or None for the best there is.
        precision: fp32, bf16, fp16 or auto (`best_precision`).

    Raises:
        LabError: the device that is asked for is not there.
        UsageError: several processes are to share what serves one.
    """
    rank, world_size = process_rank()
    kind = device or best_device(world_size)
    if kind in AVAILABLE and not AVAILABLE[kind]():
        name, best = NAMES[kind], best_device(world_size)
        raise LabError(
            f"--device {kind}: this machine has no {name}; leave the flag out for {best}"
        )
    if kind == "mps" and world_size > 1:
        raise UsageError("--device mps serves one process: leave out torchrun, or the flag")
    local_rank = int(os.environ.get("LOCAL_RANK", 0)) if world_size > 1 else 0
    if kind == "cuda" and local_rank >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(
            f"more processes than the {count} CUDA devices here: --nproc_per_node {count}"
        )
    chosen = torch.device(kind, local_rank if kind == "cuda" else None)
    if kind == "cuda":
        torch.cuda.set_device(chosen)
    elif kind == "cpu":
        keep_freed_memory()
    if world_size > 1 and not dist.is_initialized():
        join("nccl" if kind == "cuda" else "gloo", rank, world_size, chosen)
    name = best_precision(kind) if precision == "auto" else precision
    fixed = kind != "cpu" or "OMP_NUM_THREADS" in os.environ
    threads = 1 if fixed else torch.get_num_threads()
    runtime = Runtime(chosen, PRECISIONS[name], rank, world_size, threads)
    runtime.take_free_threads()
    return runtime


def join(backend: str, rank: int, world_size: int, device: torch.device) -> None:
    """Join the group of processes that torchrun has started, or has started again on one machine.

    It still has the addresses of those that have died, to which new ones would try to connect. On
    several machines, which count restarts each by itself, README's command has it forget them.
    """
    options = {"timeout": PATIENCE, "device_id": device if backend == "nccl" else None}
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or os.environ.get("LOCAL_WORLD_SIZE") != str(world_size):
        dist.init_process_group(backend, **options)
        return
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, world_size, is_master=False)
    store = dist.PrefixStore(f"restart_{restarts}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, **options)


def best_device(world_size: int = 1) -> str:
    """Return the fastest kind of device here; an `mps` serves a single process."""
    kinds = [kind for kind in AVAILABLE if kind == "cuda" or world_size == 1]
    return next((kind for kind in kinds if AVAILABLE[kind]()), "cpu")


def best_precision(kind: str) -> str:
    """Return bf16 where the device computes in it; else fp16 on CUDA, fp32 elsewhere.

    CUDA devices before Ampere (T4, RTX 20, GTX) have fast fp16 and emulate bf16.
    """
    if computes_bf16(kind):
        return "bf16"
    return "fp16" if kind == "cuda" else "fp32"


def keep_freed_memory() -> None:
    """Have glibc keep what a layer frees for the next one, as CUDA's allocator does.

    Large blocks come from the system and go back to it each time otherwise, and to touch their
    pages anew takes a third of the time that a large photograph takes.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        # Before 2.35 glibc refuses a size beyond 32 MB; the other one would do harm alone.
        if mallopt(mmap_threshold, 2**30):
            mallopt(trim_threshold, 2**31 - 1)


def start_as(state: dict[str, Any], device: str | None, precision: str | None) -> Runtime:
    """Start in the precision that a checkpoint's run was trained with, unless one is given."""
    return start(device, precision or state.get("settings", {}).get("precision", "auto"))


def computes_bf16(kind: str) -> bool:
    """True where the device is known to have bf16 arithmetic, not only a way to emulate it."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "mps":  # some have it, and nothing tells which
        return False
    # ATEN_CPU_CAPABILITY=avx2 has torch keep to that, whatever the processor knows besides.
    names = ("avx512_bf16", "amx_bf16", "bf16")  # of x86, of x86, of ARM
    if torch.backends.cpu.get_cpu_capability() == "AVX2":
        return False
    return any(torch.cpu.get_capabilities().get(name) for name in names)


def upload(values: Tensor, device: str | torch.device) -> Tensor:
    """Bring what lies in memory to a device; nothing waits for it.

    CUDA copies by itself what lies in pages that stay where they are.
    """
    waits = torch.device(device).type != "cuda" or values.device.type != "cpu"
    return values.to(device) if waits else values.pin_memory().to(device, non_blocking=True)


def has_room(device: str | torch.device, size: int) -> bool:
    """True on a CUDA device that can spare so many bytes for data: a third of what is free."""
    device = torch.device(device)
    return device.type == "cuda" and size <= torch.cuda.mem_get_info(device)[0] / 3


def home(device: str | torch.device, size: int) -> torch.device:
    """Return where data of so many bytes live: on a device, unless CUDA has no room there."""
    is_full = torch.device(device).type == "cuda" and not has_room(device, size)
    return torch.device("cpu" if is_full else device)


def map_tensors(function: Callable[[Tensor], Any], batch: Any) -> Any:
    """Return a batch with its tensors replaced; a list, tuple or dict of what it is made of."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, dict):
        return {name: map_tensors(function, value) for name, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(map_tensors(function, value) for value in batch)
    return batch


def to_device(batch: Any, runtime: Runtime) -> Any:
    """Bring a batch to the device: a tensor, or a list, tuple or dict of what a batch is made of.

    Images (N, C, H, W) and clips (N, C, T, H, W) of floats come in the layout that convolutions
    are fastest in.
    """

    def bring(value: Tensor) -> Tensor:
        layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
        known = layouts if value.is_floating_point() else {}
        layout = known.get(value.dim(), torch.preserve_format)
        return upload(value, runtime.device).to(memory_format=layout)

    return map_tensors(bring, batch)


def place(model: nn.Module, runtime: Runtime) -> nn.Module:
    """Bring a network to the device, its weights in the layout of `to_device`; return it."""
    model = model.to(runtime.device)
    for parameter in model.parameters():
        parameter.data = to_device(parameter.data, runtime)
    return model


def check_batch_size(batch_size: int, runtime: Runtime, normalises: bool) -> None:
    """Raise a UsageError unless every process gets enough images a batch, two for batch norm."""
    needed = runtime.world_size * (2 if normalises else 1)
    if batch_size < needed:
        why = "batch norm needs 2 images a process" if normalises else "each process needs an image"
        raise UsageError(f"--batch_size {batch_size} is too small: {why}, so at least {needed}")


# ---------------------------------------------------------------- what each process has of its own


def seed_epoch(seed: int, epoch: int, rank: int) -> None:
    """Seed dropout for an epoch, so that a resumed one draws as the uninterrupted one would."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def generator_states(runtime: Runtime) -> dict[str, Tensor]:
    """Return the states of the generators that dropout draws from, by the kind of device."""
    states = {"cpu": torch.get_rng_state()}
    if (kind := runtime.device.type) != "cpu":
        states[kind] = torch.get_device_module(kind).get_rng_state()
    return states


def restore_generators(states: dict[str, Any], runtime: Runtime) -> None:
    """Take up what `generator_states` returned, on another kind of device as well."""
    torch.set_rng_state(states["cpu"].cpu())
    if (kind := runtime.device.type) != "cpu" and kind in states:
        torch.get_device_module(kind).set_rng_state(states[kind].cpu())


def process_states(networks: nn.Module, runtime: Runtime) -> list[dict[str, Any]]:
    """Return of every process what it alone has in the middle of an epoch.

    That is the state of the generators that dropout draws from and, of several processes, the
    running statistics of batch norm.
    """
    own: dict[str, Any] = generator_states(runtime)
    if runtime.world_size > 1:
        own["buffers"] = [buffer.cpu() for buffer in networks.buffers()]
    return runtime.gather(own)


def restore_process(states: list[dict[str, Any]], networks: nn.Module, runtime: Runtime) -> None:
    """Take up what `process_states` returned to as many processes; of other numbers, nothing."""
    if len(states) != runtime.world_size:
        return
    own = states[runtime.rank]
    restore_generators(own, runtime)
    for buffer, saved in zip(networks.buffers(), own.get("buffers", ()), strict=False):
        buffer.copy_(saved)


def average_buffers(networks: nn.Module, runtime: Runtime) -> None:
    """Give every process the mean of the batch norms' running statistics."""
    if runtime.world_size > 1:
        for buffer in networks.buffers():
            if buffer.is_floating_point():
                runtime.total(buffer).div_(runtime.world_size)
