"""The passes of a training step, launched as one CUDA graph.

A small network's kernels are done before Python has asked for the next: most of a step, the GPU
waits. Recorded once, all of them are asked for at once, and compute the same
(docs.pytorch.org/docs/stable/notes/cuda.html, "Whole-network capture").
"""

import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from lab.console import LabError
from lab.runtime import map_tensors

WATCHED = 3  # the step that is looked at; those before it take memory and choose kernels
Passes = Callable[[Any, Any], tuple[Tensor, dict[str, Tensor]]]


class Graphed:
    """Does what `passes(inputs, targets)` does: forward, and backward to the weights' gradients.

    Once batches of one shape have come a few times, what they do is recorded, and done by graph for
    all that follow of that shape; others, as an epoch's last, go their own way. So do all where
    something in the passes waits for the device, since Python has to see a value: of any
    batch, that would be the recorded one's.

    What is returned, and the gradients, are overwritten by the next batch.
    """

    def __init__(self, passes: Passes, weights: Iterable[nn.Parameter]):
        self.passes, self.weights = passes, [weight for weight in weights if weight.requires_grad]
        self.graph: torch.cuda.CUDAGraph | None = None
        self.shapes, self.seen, self.waits = None, 0, False

    def __call__(self, inputs: Any, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        shapes: list[Any] = []
        map_tensors(lambda value: shapes.append((value.shape, value.dtype)), (inputs, targets))
        if self.graph is None and shapes != self.shapes:
            self.shapes, self.seen = shapes, 0
        if self.waits or shapes != self.shapes:
            return self.passes(inputs, targets)
        self.seen += 1
        if self.seen <= WATCHED:
            own = self._watch if self.seen == WATCHED else self.passes
            return own(inputs, targets)
        if self.graph is None:
            self._record(inputs, targets)
        else:
            fed = iter(self.fed)
            map_tensors(lambda value: next(fed).copy_(value), (inputs, targets))
        self.graph.replay()
        for weight, gradient in zip(self.weights, self.gradients, strict=True):
            weight.grad = gradient  # a batch of another shape has left its own
        return self.results

    def _watch(self, inputs: Any, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """Make the passes, and note whether something waits for the device."""
        before = torch.cuda.get_sync_debug_mode()
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
                results = self.passes(inputs, targets)
        finally:
            torch.cuda.set_sync_debug_mode(before)
        self.waits = any("synchronizing" in str(warning.message) for warning in caught)
        return results

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
            why = str(error).strip().partition("\n")[0]
            raise LabError(
                f"the step cannot be recorded as a CUDA graph ({why}): train with --no-graph"
            ) from error
        self.graph, self.gradients = graph, [weight.grad for weight in self.weights]
