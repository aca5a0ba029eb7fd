"""A step through the non-local block, against the form that holds the matrix of all pairs.

Clips a second, and memory: the peak above what a fresh process held before the step.
"""

import math
import multiprocessing
import statistics
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from lab.runtime import Runtime
from networks import NonLocalBlock
from speed import Figures, Turn, ratio, table

CLIPS = (2, 64, 8, 32, 32)  # (N, C, T, H, W) of the assignment's non-local block
OWN, NAIVE = "NonLocalBlock", "softmax(q k^T) v"


def contestants(folder: Path, runtime: Runtime) -> dict[Hashable, Turn]:
    """Return the two."""
    return {name: turns(name, runtime) for name in (OWN, NAIVE)}


def report(figures: Figures, runtime: Runtime) -> str:
    """Return medians of clips/s, peak memory, and both in ratio to the naive form."""
    memory = {name: extra_memory(name, runtime.device.type, CLIPS) for name in (OWN, NAIVE)}
    return table(
        [f"forward and backward, {CLIPS}, fp32", "clips/s", "ratio", "extra MiB", "ratio"],
        [
            [
                name,
                f"{statistics.median(figures[name]):,.2f}",
                ratio(figures, name, NAIVE),
                f"{memory[name] / 2**20:,.0f}",
                f"1/{memory[NAIVE] / memory[name]:.1f}",
            ]
            for name in (OWN, NAIVE)
        ],
    )


def make_forward(name: str, device: torch.device, channels: int) -> Callable[[Tensor], Tensor]:
    """Return one of the two: the project's block, or its weights with softmax(q k^T) v as is."""
    torch.manual_seed(0)
    block = NonLocalBlock(channels, identity_init=False).to(device)

    def naive(x: Tensor) -> Tensor:
        query, key, value = (
            conv(x).flatten(2) for conv in (block.query_conv, block.key_conv, block.value_conv)
        )
        y = value @ torch.softmax(query.mT @ key, 2).mT  # (N, C/2, THW)
        return x + block.out_conv(y.unflatten(2, x.shape[2:]))

    return block if name == OWN else naive


def make_step(name: str, device: torch.device, channels: int) -> Callable[..., None]:
    """Return a function that goes forward and backward with clips of a shape."""
    forward = make_forward(name, device, channels)

    def step(*shape: int) -> None:
        forward(torch.randn(shape, device=device, requires_grad=True)).sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def turns(name: str, runtime: Runtime) -> Turn:
    """A step with CLIPS: clips/s."""
    step = make_step(name, runtime.device, CLIPS[1])

    def turn() -> float:
        began = time.perf_counter()
        step(*CLIPS)
        return CLIPS[0] / (time.perf_counter() - began)

    turn()  # warm up
    return turn


def extra_memory(name: str, device_type: str, shape: Sequence[int]) -> float:
    """Return the bytes that a step takes at its peak in a fresh process; nan where unknown."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=fresh) as process:
        return process.submit(peak_of_a_step, name, device_type, shape).result()


def peak_of_a_step(name: str, device_type: str, shape: Sequence[int]) -> float:
    """Return the bytes of this process at their peak in a step, above what it held before."""
    step = make_step(name, torch.device(device_type), shape[1])
    step(1, shape[1], 2, 8, 8)  # libraries, kernels and the weights' gradients stay
    if device_type == "cuda":
        before = torch.cuda.memory_allocated()
        step(*shape)
        return torch.cuda.max_memory_allocated() - before
    before = resident_bytes("VmRSS")
    step(*shape)
    return resident_bytes("VmHWM") - before


def resident_bytes(kind: str) -> float:
    """Return this process's memory, now (VmRSS) or at its peak (VmHWM); nan but on Linux."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next(
        (float(line.split()[1]) * 1024 for line in lines if line.startswith(kind)), math.nan
    )
