"""Images with labels, as the flags and as a checkpoint name them; `datasets` has the sources."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from datasets import SOURCES, Source, find_data, make_loader
from lab.console import LabError
from lab.image_folder import check_classes
from lab.imagenet import preprocess_of
from lab.images import Preprocess
from networks import NETWORKS as OWN
from tasks.loaders import root_of
from tasks.trained import Trained, made_for, preprocess_of_run


def preprocess_for(
    network: str, image_size: int | None, source: Source, state: Mapping[str, Any] | None
) -> Preprocess:
    """Return how images are put into a network that is to be trained.

    Args:
        image_size: pixels a side; None for the network's own.
        source: of the images.
        state: a checkpoint that it starts from, which knows; or a bare state dict.
    """
    if state is not None and "configs" in state:
        preprocess = preprocess_of_run(state)
    elif network in OWN:
        preprocess = made_for(network, source)
    else:
        preprocess = preprocess_of(network)
    if image_size:
        resize = preprocess.resize and round(preprocess.resize * image_size / preprocess.size[0])
        preprocess = replace(preprocess, size=(image_size,) * 2, resize=resize)
    return preprocess


def test_loader(trained: Trained, data_root: Path | None, batch_size: int) -> DataLoader:
    """Return the test split that a network can be tried on.

    Raises:
        LabError: no test split, or its classes are not the network's.
    """
    state, dataset = trained.state, trained.state.get("dataset", "signs")
    if dataset not in SOURCES:
        raise LabError(f"unknown data set {dataset!r}; there are {', '.join(SOURCES)}")
    root, source = find_data(dataset, root_of(trained, data_root)), SOURCES[dataset]
    if source.prepare is not None:
        source.prepare(root)
    preprocess = preprocess_of_run(state)
    split = source.read(root, "test", preprocess)
    where, known = root / "test" if split.paths else dataset, len(trained.classes)
    if "class_names" in state:
        check_classes(split.classes, state["class_names"], where, "the network")
    elif len(split.classes) != known:
        raise LabError(
            f"{where} has {len(split.classes)} classes, but the network tells {known} apart"
        )
    return make_loader(split, preprocess, batch_size, device=trained.runtime.device)
