"""The passes of a training step, launched as one CUDA graph.

A small network's kernels are done before Python has asked for the next: most of a step, the GPU
waits. Recorded once, all of them are asked for at once, and compute the same
(docs.pytorch.org/docs/stable/notes/cuda.html, "Whole-network capture").
"""

import random
import warnings
from collections.abc import Callable, Iterable
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from lab.console import LabError
from lab.runtime import map_tensors

WATCHED = 3  # the step that is looked at; those before it take memory and choose kernels
Passes = Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]
aten = torch.ops.aten


class Graphed:
    """Does what `passes(inputs, targets)` does: forward, and backward to the weights' gradients.

    Once batches of one shape have come a few times, what they do is recorded, and done by graph for
    all that follow of that shape; others, as an epoch's last, go their own way. So do all where the
    CPU has a part in the passes (`CpuWatch`), which a graph would leave out.

    What is returned, and the gradients, are overwritten by the next batch.
    """

    def __init__(self, passes: Passes, weights: Iterable[nn.Parameter]):
        self.passes, self.weights = passes, list(weights)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.shapes, self.seen, self.needs_cpu = None, 0, False

    def __call__(self, inputs: Any, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        shapes: list[Any] = []
        map_tensors(lambda value: shapes.append((value.shape, value.dtype)), (inputs, targets))
        if self.graph is None and shapes != self.shapes:
            self.shapes, self.seen = shapes, 0
        if self.needs_cpu or shapes != self.shapes:
            return self.passes(inputs, targets)
        self.seen += 1
        if self.seen < WATCHED:
            return self.passes(inputs, targets)
        if self.seen == WATCHED:
            with CpuWatch() as watch:
                results = self.passes(inputs, targets)
            self.needs_cpu = watch.seen
            return results
        if self.graph is None:
            self._record(inputs, targets)
        else:
            fed = iter(self.fed)
            map_tensors(lambda value: next(fed).copy_(value), (inputs, targets))
        self.graph.replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient  # a batch of another shape has left its own
        return self.results

    def _record(self, inputs: Any, targets: Any) -> None:
        """Record the passes, which computes nothing."""
        self.fed: list[Tensor] = []

        def keep(value: Tensor) -> Tensor:
            self.fed.append(value.clone())
            return self.fed[-1]

        batch = map_tensors(keep, (inputs, targets))
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.results = self.passes(*batch)
        except RuntimeError as error:
            first: BaseException = error  # to end a recording that has failed fails as well
            while first.__context__ is not None:
                first = first.__context__
            why = str(first).strip().partition("\n")[0]
            raise LabError(
                f"the step cannot be recorded as a CUDA graph ({why}): train with --no-graph"
            ) from error
        self.graph, self.gradients = graph, [weight.grad for weight in self.weights]


class CpuWatch(TorchDispatchMode):
    """Sees whether the CPU has a part in what is computed on the device.

    It has where something waits for a value, where something is brought from the CPU, and where a
    generator of the CPU is drawn from: a graph would know the recorded batch's alone.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Let what torch.compile has made run while it is watched.

        Where a mode sees all, torch goes back to the code as it is written: 2.11 for good.
        """
        return True

    def __enter__(self) -> Self:
        self._drawn, self._mode = states(), torch.cuda.get_sync_debug_mode()
        self._warnings = warnings.catch_warnings(record=True)
        self._caught = self._warnings.__enter__()
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch.cuda.set_sync_debug_mode(self._mode)
        self._warnings.__exit__(*error)
        self.seen |= any(
            "called a synchronizing" in str(warning.message) for warning in self._caught
        )
        self.seen |= self._drawn != states()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = operation(*args, **(kwargs or {}))
        if operation in (aten._to_copy.default, aten.copy_.default):
            source = args[1] if operation is aten.copy_.default else args[0]
            self.seen |= source.device.type == "cpu" != result.device.type
        return result


def states() -> tuple[Any, ...]:
    """Return the states of the CPU's generators."""
    _, numbers, place, *_ = np.random.get_state()
    return torch.get_rng_state().tolist(), random.getstate(), numbers.tolist(), place
