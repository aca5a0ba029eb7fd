"""A trained network with all that was loaded with it: made once by a script, then handed on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from lab import checkpoint
from lab.objective import Objective
from lab.runtime import Runtime, place, start_as
from tasks import Task, task_of


@dataclass(frozen=True)
class Trained:
    """What a script has loaded.

    Attributes:
        path: of the checkpoint.
        state: what it holds.
        network: on the runtime's device, in evaluation mode.
        runtime: in the precision of the training, unless another is asked for.
    """

    task: Task
    path: Path
    state: dict[str, Any]
    network: nn.Module
    objective: Objective
    runtime: Runtime

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; the scaffold's checkpoints say their number alone."""
        names = self.state.get("class_names")
        return tuple(map(str, names or range(self.state["configs"]["num_classes"])))


def load_trained(path: Path, device: str | None, precision: str | None = None) -> Trained:
    """Load the network of a checkpoint.

    Args:
        precision: of the forward pass; None for that of the training.

    Raises:
        LabError: no such checkpoint, or a damaged one.
    """
    state = checkpoint.load(path)
    task = task_of(state, path)
    objective, network = task.restore(state)
    runtime = start_as(state, device, precision)
    return Trained(task, path, state, place(network.eval(), runtime), objective, runtime)
