"""A step through the non-local block, against the form that holds the matrix of all pairs.

Clips a second, and memory: the peak above what a fresh process held before the step.
"""

import math
import multiprocessing
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from lab.files import read_lines
from lab.runtime import Runtime
from networks import NonLocalBlock
from speed.turns import Figures, Turn, rate, ratio, table, timed

# (N, C, T, H, W): of the assignment's block, and of that of video's `non_local` in 32 frames.
SHAPES = ((2, 64, 8, 32, 32), (32, 40, 16, 8, 8))
OWN, NAIVE = "NonLocalBlock", "softmax(q k^T) v"
SECONDS, MEMORY = "seconds", "memory"


def contestants(folder: Path, runtime: Runtime, tasks: Iterable[str]) -> dict[Hashable, Turn]:
    """Return the two at each shape, and what they take of memory, which is measured once."""
    turns: dict[Hashable, Turn] = {}
    for shape in SHAPES:
        for name in (OWN, NAIVE):
            step = partial(make_step(name, runtime.device, shape[1]), *shape)
            turns[SECONDS, name, shape] = timed(step, runtime, shape[0])
            turns[MEMORY, name, shape] = cache(
                partial(extra_memory, name, runtime.device.type, shape)
            )
    return turns


def report(figures: Figures) -> str:
    """Return medians of clips/s, peak memory, and both in ratio to the naive form."""
    rows = [
        [
            f"{name}, {shape}",
            rate(figures, (SECONDS, name, shape)),
            ratio(figures, (SECONDS, NAIVE, shape), (SECONDS, name, shape)),
            f"{statistics.median(figures[MEMORY, name, shape]) / 2**20:,.0f}",
            "1/" + ratio(figures, (MEMORY, NAIVE, shape), (MEMORY, name, shape)),
        ]
        for kind, name, shape in figures
        if kind == SECONDS
    ]
    head = ["forward and backward, fp32", "clips/s", "ratio", "extra MiB", "ratio"]
    return table(head, rows)


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
    return lambda *shape: (
        forward(torch.randn(shape, device=device, requires_grad=True)).sum().backward()
    )


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
    lines = read_lines(status) if status.exists() else []
    return next(
        (float(line.split()[1]) * 1024 for line in lines if line.startswith(kind)), math.nan
    )
