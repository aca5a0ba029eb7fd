"""What is trained on: a loss, and a meter that says how good a network is.

    class Regression:
        ranks_by = "r2"

        def loss(self, network, inputs, targets):
            return F.mse_loss(network(inputs), targets["value"])

        def meter(self):
            return R2()

Each of `tasks/` has one; `engine.fit` trains any network on any of them.
"""

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lab.runtime import Runtime

KEPT = 1000  # values that wait to be added up
Loss = Tensor | tuple[Tensor, dict[str, Tensor]]


class Meter(Protocol):
    """Adds up, batch by batch, how good a network is."""

    def update(self, network: nn.Module, inputs: Any, targets: Any) -> None:
        """Run the network, which is in evaluation mode, on a batch, and keep what counts."""

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return the figures by name, over all processes; `loss` is drawn beside training's."""


class Objective(Protocol):
    """What is learned.

    Attributes:
        ranks_by: the meter's figure that tells good epochs from bad ones; higher is better. Empty
            where there is nothing to measure: then none is best.
    """

    ranks_by: str

    def loss(self, network: nn.Module, inputs: Any, targets: Any) -> Loss:
        """Return the loss of a batch, a mean over its inputs; of a network in either mode.

        Beside it may stand further figures to log by name, scalars and means over the inputs too.
        """

    def meter(self) -> Meter | None:
        """Return a new meter; None where there is nothing to measure."""


class Sums:
    """Sums of what comes batch by batch, exact to float64 on every device.

    A device may know no float64 (mps), and to wait for one costs: values stay there as they come,
    and are added up on the CPU.
    """

    def __init__(self) -> None:
        self._sums: list[float] = []
        self._kept: list[tuple[Tensor, float]] = []

    def add(self, values: Tensor, weight: float = 1.0) -> None:
        """Add values (K,) of the device, each times `weight`."""
        self._kept.append((values.detach(), weight))
        if len(self._kept) == KEPT:
            self.now()

    def now(self) -> list[float]:
        """Return the K sums; none where nothing was added."""
        if self._kept:
            rows = torch.stack([values for values, _ in self._kept]).cpu().tolist()
            for row, (_, weight) in zip(rows, self._kept, strict=True):
                self.add_row(row, weight)
            self._kept = []
        return self._sums

    def add_row(self, row: list[float], weight: float) -> None:
        """Add values that have come from the device."""
        before = self._sums or [0.0] * len(row)
        self._sums = [s + weight * value for s, value in zip(before, row, strict=True)]


def loss_and_figures(result: Loss) -> tuple[Tensor, dict[str, Tensor]]:
    """Return what `Objective.loss` returned as a loss and the figures beside it."""
    return result if isinstance(result, tuple) else (result, {})
