"""From flags to a network that learns to paint photographs in one style."""

from dataclasses import asdict
from pathlib import Path

from lab.console import UsageError
from lab.fetching import image_path
from lab.flags import VISUALIZED
from lab.folders import stored
from lab.registry import new_config
from lab.runtime import Runtime
from tasks import Job, State, TrainFlags
from tasks.loaders import make_loaders
from tasks.starting import start_network
from tasks.style import PAINTING, PHOTOGRAPHS, TASK
from tasks.style.data import make_loader, read_photographs
from tasks.style.losses import make_losses
from tasks.style.networks import NETWORKS
from tasks.style.objective import StyleObjective


def prepare(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
) -> Job:
    """Read the photographs and build the network that flags ask for."""
    own, settings, folder = flags.own, flags.settings, flags.data_root
    for name, given, wanted in (
        ("style", own.style, PAINTING), ("data_root", folder, PHOTOGRAPHS),
    ):  # fmt: skip
        if given is None:
            raise UsageError(f"training needs --{name}, {wanted}")
    losses, preprocess = make_losses(
        own, image_path(own.style, VISUALIZED / "images"), runtime.device
    )
    size = losses.recipe.size
    loaders = make_loaders(
        ("train",), lambda mode: read_photographs(folder, size), make_loader, settings, runtime,
        normalises=False,
    )  # fmt: skip

    config = new_config(NETWORKS, TASK.network, width=own.width)
    start = start_network(NETWORKS, TASK.network, config, flags, resumed)
    identity = start.identity | {
        "preprocess": asdict(loaders["train"].dataset.preprocess),
        "data_root": stored(folder),
        "flags": {k: str(v) if isinstance(v, Path) else v for k, v in vars(own).items()},
    }
    objective = StyleObjective(losses, preprocess.bounds(runtime.device))
    subject = f"photographs of {size}x{size} from {folder}"
    return Job(objective, start.network, loaders, identity, start.parameters, subject)
