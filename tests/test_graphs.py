"""What is launched as a graph does what was recorded: on every batch of a shape, and no other.

Without a GPU, what replays a graph is stood in for; the real one has the suite `cuda`.
"""

import contextlib
import random
import unittest
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from lab.console import LabError
from lab.graphs import WATCHED, CpuWatch, Graphed

SYNC = "called a synchronizing CUDA operation (Triggered internally)"
REMARK = "Synchronization debug mode does not yet detect all synchronizing operations"


class Replayed:
    """In place of a CUDA graph: does again what was recorded, into the same memory."""

    def __init__(self) -> None:
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        graphed, kept = self.graphed, [weight.grad for weight in self.graphed.weights]
        loss, figures = graphed.passes(*self.batch)
        graphed.results[0].copy_(loss)
        for name, value in figures.items():
            graphed.results[1][name].copy_(value)
        for recorded, weight in zip(graphed.gradients, graphed.weights, strict=True):
            recorded.copy_(weight.grad)
        for weight, gradient in zip(graphed.weights, kept, strict=True):
            weight.grad = gradient  # which of them a replay leaves as they are


@contextlib.contextmanager
def recording(failure: str = "") -> Iterator[None]:
    """In place of `torch.cuda.graph`, which says at its end of a failure that there was one."""
    yield
    if failure:
        try:
            raise RuntimeError(failure)
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


class GraphedTest(unittest.TestCase):
    def setUp(self):
        mode = {"get_sync_debug_mode": lambda: 0, "set_sync_debug_mode": lambda mode: None}
        self.enterContext(mock.patch.multiple("torch.cuda", **mode))

    def passes(self, inputs: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, dict]:
        """A step's passes through a layer; which batches came is noted."""
        self.came.append(len(inputs))
        if self.draws:
            inputs = inputs * random.random()
        outputs = self.layer(inputs)
        loss = (outputs - targets["value"]).square().mean()
        self.layer.zero_grad(set_to_none=True)
        loss.backward()
        return loss.detach(), {"largest": outputs.detach().max()}

    def learn(self, graphed: bool, counts: tuple[int, ...], draws: bool = False) -> list[Any]:
        """Return what each step comes to, of batches of so many inputs, and the weights after."""
        torch.manual_seed(0)
        self.layer, self.came, self.draws, course = nn.Linear(3, 1), [], draws, []
        learn = Graphed(self.passes, self.layer.parameters()) if graphed else self.passes
        self.graph = Replayed()
        self.graph.graphed, gone = learn, []
        generator = torch.Generator().manual_seed(1)
        for count in counts:
            inputs = torch.randn(count, 3, generator=generator)
            targets = {"value": torch.randn(count, 1, generator=generator)}
            with (
                mock.patch("torch.cuda.CUDAGraph", lambda: self.graph),
                mock.patch("torch.cuda.graph", lambda graph, **_: recording()),
            ):
                if graphed and learn.graph is None:
                    kept = {"value": targets["value"].clone()}
                    self.graph.batch = inputs.clone(), kept
                if graphed and learn.graph is not None:
                    self.graph.batch = learn.fed[0], {"value": learn.fed[1]}
                loss, figures = learn(inputs, targets)
            course.append([loss.item(), figures["largest"].item()])
            gone.append(inputs.fill_(torch.nan))  # the loader's own, which it may use again
            with torch.no_grad():
                for weight in self.layer.parameters():
                    weight -= 0.1 * weight.grad
        self.assertTrue(all(inputs.isnan().all() for inputs in gone))
        return [course, *(weight.tolist() for weight in self.layer.parameters())]

    def test_it_goes_where_the_passes_go(self):
        """Batches of other shapes between them, from the first on."""
        for counts in ((4,) * 9, (2, *(4,) * 7, 2, 4, 4), (4, 2, 4, 4, 4, 2, 4, 4, 4, 2)):
            with self.subTest(counts=counts):
                plain, graphed = self.learn(False, counts), self.learn(True, counts)
                torch.testing.assert_close(graphed, plain, rtol=0, atol=0)

    def test_from_when_on_and_what(self):
        self.learn(True, (2, *(4,) * 6, 2, 4))
        self.assertEqual(self.graph.replays, 6 - WATCHED + 1)

    def test_what_needs_the_cpu_is_not_recorded(self):
        random.seed(0)
        plain = self.learn(False, (4,) * 6, draws=True)
        random.seed(0)
        graphed = self.learn(True, (4,) * 6, draws=True)
        torch.testing.assert_close(graphed, plain, rtol=0, atol=0)
        self.assertEqual(self.graph.replays, 0)

    def test_what_cannot_be_recorded(self):
        self.layer, self.came, self.draws = nn.Linear(3, 1), [], False
        graphed = Graphed(self.passes, self.layer.parameters())
        why = "operation not permitted when stream is capturing\nand more"
        batch = torch.zeros(2, 3), {"value": torch.zeros(2, 1)}
        with (
            mock.patch("torch.cuda.CUDAGraph", Replayed),
            mock.patch("torch.cuda.graph", lambda graph, **_: recording(why)),
            self.assertRaisesRegex(LabError, r"\(operation .* capturing\): train with --no-graph$"),
        ):
            for _ in range(WATCHED + 1):
                graphed(*batch)


class CpuWatchTest(unittest.TestCase):
    def setUp(self):
        self.modes = []
        mode = {"get_sync_debug_mode": lambda: 2, "set_sync_debug_mode": self.modes.append}
        self.enterContext(mock.patch.multiple("torch.cuda", **mode))

    def seen(self, work: Any) -> bool:
        with CpuWatch() as watch:
            work()
        self.assertEqual(self.modes[-2:], ["warn", 2])
        return watch.seen

    def test_what_a_graph_has(self):
        values = torch.ones(3, requires_grad=True)
        drawn = torch.Generator().manual_seed(0)
        for work in (
            lambda: (2 * values).sum().backward(), lambda: values.detach().clone(),
            lambda: torch.empty(3, device="meta").to(torch.float16),
            lambda: torch.rand(3, generator=drawn), lambda: warnings.warn(REMARK, stacklevel=1),
        ):  # fmt: skip
            self.assertFalse(self.seen(work))

    def test_what_it_lacks(self):
        far = torch.empty(3, device="meta")
        for work in (
            lambda: torch.ones(3).to("meta"), lambda: far.copy_(torch.ones(3)),
            lambda: torch.rand(1), random.random, np.random.rand,
            lambda: warnings.warn(SYNC, stacklevel=1),
        ):  # fmt: skip
            self.assertTrue(self.seen(work))

    def test_what_is_compiled_runs_compiled(self):
        """While it is watched, and after; what it brings from the CPU is seen."""
        runs = []

        def backend(module: Any, inputs: Any) -> Any:
            return lambda *given: runs.append(len(given)) or module(*given)

        torch.compiler.reset()
        layer, values = torch.compile(nn.Linear(3, 1), backend=backend), torch.ones(2, 3)
        bring = torch.compile(lambda values: values.to("meta"), backend=backend)
        for call, expected in ((layer, False), (bring, True)):
            call(values)
            self.assertEqual(self.seen(lambda call=call: call(values)), expected)
            call(values)
        self.assertEqual(len(runs), 6)


if __name__ == "__main__":
    unittest.main()
