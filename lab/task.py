"""What the loop asks of a field: a loss to train on, and a meter that says how good a network is.

    class Regression:
        name, ranks_by = "regression", "r2"

        def loss(self, model, inputs, targets):
            return F.mse_loss(model(inputs), targets["value"])

        def meter(self):
            return R2()

`tasks/` holds the fields; `engine.fit` trains any of them.
"""

from typing import Any, Protocol

from torch import Tensor, nn

from lab.runtime import Runtime

Loss = Tensor | tuple[Tensor, dict[str, Tensor]]


class Meter(Protocol):
    """Adds up, batch by batch, how good a network is."""

    def update(self, model: nn.Module, inputs: Any, targets: Any) -> None:
        """Run the network, which is in evaluation mode, on a batch, and keep what counts."""

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return the figures by name, over all processes; `loss` is drawn beside training's."""


class Task(Protocol):
    """What is learned.

    Attributes:
        name: kept in checkpoints.
        ranks_by: the meter's figure that tells good epochs from bad ones; higher is better. Empty
            where there is nothing to measure: then none is best.
    """

    name: str
    ranks_by: str

    def loss(self, model: nn.Module, inputs: Any, targets: Any) -> Loss:
        """Return the loss of a batch, a mean over its inputs; of a network in either mode.

        Beside it may stand further figures to log by name, scalars and means over the inputs too.
        """

    def meter(self) -> Meter | None:
        """Return a new meter; None where there is nothing to measure."""
