"""From flags to a classifier that is to be trained on images."""

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import DataLoader

from datasets import SOURCES, Split, find_data, make_loader, modes_of
from lab.console import UsageError, say
from lab.files import attempt
from lab.image_folder import check_classes
from lab.registry import new_config
from lab.runtime import Runtime
from networks import NETWORKS as OWN
from tasks import Job, State, TrainFlags
from tasks.classification import DATASETS, Flags
from tasks.classification.data import preprocess_for
from tasks.classification.networks import NETWORKS, check_network
from tasks.classification.objective import ClassificationObjective
from tasks.loaders import make_loaders, make_missing
from tasks.starting import check_start, start_network

TESTED = 256  # images a batch of val and test, or as many as in training


def prepare(
    flags: TrainFlags, runtime: Runtime, resumed: State | None, weights: State | None
) -> Job:
    """Read the data and build the network that flags ask for."""
    own, settings = flags.own, flags.settings
    name, source = own.network or DATASETS[own.dataset], SOURCES[own.dataset]
    check_flags(name, own, resumed)
    check_start(name, flags, resumed, published=name not in OWN)
    root = find_data(own.dataset, flags.data_root)
    preprocess = preprocess_for(name, own.image_size, source, resumed or weights)
    config_for = partial(
        new_config, NETWORKS, name, in_channels=len(preprocess.mean), use_batch_norm=own.bn,
        use_stn=own.stn, use_non_local=own.non_local,
        **({"dropout_prob": own.dropout} if name == "classifier" else {}),
    )  # fmt: skip
    normalises = check_network(name, config_for(num_classes=2), preprocess.size) and not own.freeze
    make_missing(source.prepare, runtime, root)

    def make(split: Split, batch_size: int, training: bool, **options: Any) -> DataLoader:
        augment = source.augment if training and settings.augment else None
        return make_loader(
            split, preprocess, batch_size, settings.num_workers, training, augment, **options
        )

    loaders = make_loaders(
        modes_of(own.dataset, root),
        lambda mode: source.read(root, mode, preprocess, settings.val_share),
        make, settings, runtime, max(settings.batch_size, TESTED), normalises,
    )  # fmt: skip
    classes = loaders["train"].dataset.classes
    if "class_names" in (resumed or {}):
        check_classes(classes, resumed["class_names"], root or own.dataset, flags.resume)

    start = start_network(
        NETWORKS, name, config_for(num_classes=len(classes)), flags, resumed, weights,
        (name, "ImageNet"), classes,
    )  # fmt: skip
    subject = f"images of {len(classes)} classes from {root or 'scikit-learn'}"
    kept = {"label_smoothing": own.label_smoothing, "freeze": own.freeze}
    job = start.job(
        ClassificationObjective(own.label_smoothing), loaders, subject, own.dataset, root,
        flags=kept, preprocess=asdict(preprocess),
    )  # fmt: skip
    if own.dataset in ("mnist", "digits"):
        return replace(job, preview=partial(save_first_picture, loaders["train"].dataset.split))
    return job


def check_flags(name: str, own: Flags, resumed: State | None) -> None:
    """Raise a UsageError for a flag that the network or the run has no use for."""
    if name not in NETWORKS:
        raise UsageError(
            f"--network {name}: there are {', '.join(OWN)} and torchvision's classifiers, "
            "resnet18, vgg19, squeezenet1_1 and so on"
        )
    if resumed is not None and own.image_size:
        raise UsageError("--resume has its own: leave out --image_size")
    if name != "classifier" and (own.bn or own.stn or own.non_local or own.dropout):
        raise UsageError(
            "--bn, --stn, --non_local and --dropout belong to --network classifier; "
            f"{name} is as it is"
        )
    if name in OWN and own.image_size:
        raise UsageError(f"{name} has one size; --image_size is for torchvision's networks")


def save_first_picture(split: Split, folder: Path) -> None:
    """Save the first training picture in its own size, as the MNIST assignment asks."""
    image, path = Image.fromarray(split.images[0].squeeze(2).numpy()), folder / "vis.png"
    with attempt(f"write {path}"):
        image.save(path)
    name = split.classes[int(split.labels[0])]
    say(f"Saved {path}, the first training picture: {name}, {image.width}x{image.height}")
