"""From flags to a network that is to be trained on clips."""

from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from lab.console import UsageError, counted
from lab.image_folder import check_classes
from lab.registry import new_config
from lab.runtime import Runtime
from tasks import Job, State, TrainFlags
from tasks.loaders import find_made, make_loaders
from tasks.starting import check_start, start_network
from tasks.video import DATASETS, NETWORK
from tasks.video.data import SOURCES, TESTED, Split, make_loader, modes_of, read_split
from tasks.video.networks import NETWORKS, default_width
from tasks.video.objective import VideoObjective


def prepare(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
) -> Job:
    """Read the clips and build the network that flags ask for."""
    own, settings = flags.own, flags.settings
    name, frames = own.network or NETWORK, own.frames or DATASETS[own.dataset]
    config_for = partial(new_config, NETWORKS, name, frames=frames)
    if own.stride > 1 and own.dataset != "clips" and resumed is None:
        raise UsageError(f"--stride is of --dataset clips: {own.dataset} has no use for it")
    config_for(num_classes=2, width=1)  # what is wrong with them is said before clips are read
    check_start(name, flags, resumed)
    root = find_made(SOURCES, own.dataset, flags.data_root, runtime, frames)

    def read(mode: str) -> Split:
        return read_split(own.dataset, root, mode, frames, own.stride, settings.val_share)

    def make(split: Split, batch_size: int, training: bool, **options: Any) -> DataLoader:
        return make_loader(split, batch_size, training, training and settings.augment, **options)

    modes, tested = modes_of(own.dataset, root), TESTED * runtime.world_size
    loaders = make_loaders(modes, read, make, settings, runtime, tested, not own.freeze)
    classes = loaders["train"].dataset.classes
    if resumed is not None:
        check_classes(classes, resumed["class_names"], root, flags.resume)

    width = own.width or default_width(name, len(classes), frames)
    config = config_for(num_classes=len(classes), width=width)
    start = start_network(NETWORKS, name, config, flags, resumed, weights, classes=classes)
    subject = f"clips of {frames} frames, {counted(len(classes), 'classes')}, from {root}"
    kept = {"stride": own.stride, "freeze": own.freeze}
    return start.job(VideoObjective(), loaders, subject, own.dataset, root, flags=kept)
