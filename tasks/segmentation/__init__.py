"""Segmentation: what every pixel shows. Of streets, drawn and real, for one.

    python train.py --task segmentation                          # on streets, drawn by itself
    python train.py --task segmentation --dataset camvid --data_root FOLDER --weights RUN
    python train.py --task segmentation --dataset voc --network fcn_8s --pretrained
    python test.py --data_root FOLDER                            # CamVid's, after the drawn ones
    python test.py --image photo.jpg

The tools and networks that have names of the book that teaches them are in `voc`, `upsampling` and
`fcn`; `resunet` is a network for two cores. `data` reads pictures with labels, `meter` measures
what is found in them.
"""

from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from datasets import find_folder
from lab.console import UsageError, closed_share, say
from lab.folders import located, stored
from lab.runtime import Runtime
from networks import at_least_float32, fold, load_fitting
from tasks import Field, Job
from tasks.segmentation.data import (
    SOURCES,
    SegmentationDataset,
    class_shares,
    make_loader,
    read_split,
    recognised,
)
from tasks.segmentation.fcn import BODY, FCN
from tasks.segmentation.labels import IGNORED, VOC_CLASSES, VOC_COLORMAP
from tasks.segmentation.meter import SegmentationMeter
from tasks.segmentation.networks import FINEST, build_network, make_configs
from tasks.segmentation.segmenter import Segmenter
from tasks.segmentation.upsampling import bilinear_kernel, kernel2matrix, trans_conv
from tasks.segmentation.voc import (
    VOCSegDataset,
    read_voc_images,
    voc_colormap2label,
    voc_label_indices,
    voc_rand_crop,
)
from tasks.windows import WHOLE, choose_configs, read_loaders, refuse_other_weights

if TYPE_CHECKING:
    from lab.pictures import Picture

__all__ = [
    "FCN",
    "FIELD",
    "VOC_CLASSES",
    "VOC_COLORMAP",
    "VOCSegDataset",
    "bilinear_kernel",
    "kernel2matrix",
    "read_voc_images",
    "trans_conv",
    "voc_colormap2label",
    "voc_label_indices",
    "voc_rand_crop",
]

EVENNESS = 1.1  # of the classes' weights; ENet's is 1.02
# Of the epochs, unless told otherwise. What a street looks like is learned as well from windows of
# a quarter of the pixels, at a third of the cost; where things end, in the other epochs.
COARSE_SHARE = 0.7


# ---------------------------------------------------------------- task


class Segmentation:
    """Cross-entropy of every pixel and the Dice loss of every class, ranked by mean IoU.

    Args:
        classes: names, by label.
        weights: of each class's pixels in the cross-entropy; None for 1.
    """

    name = "segmentation"
    ranks_by = "miou"

    def __init__(self, classes: Iterable[str], weights: Iterable[float] | None = None):
        self.classes = tuple(classes)
        self.weights = None if weights is None else torch.tensor(list(weights))

    def loss(self, model: Segmenter, images: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of images (N, 3, H, W) with labels (N, H, W)."""
        scores = at_least_float32(model(images))
        labels = of_cells(labels, scores.shape[2])
        return self.cross_entropy(scores, labels) + dice_loss(scores, labels)

    def cross_entropy(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over images of the mean over each one's labelled pixels.

        Args:
            scores: (N, C, H, W).
            labels: (N, H, W).
        """
        weights = None if self.weights is None else self.weights.to(scores.device)
        losses = F.cross_entropy(
            at_least_float32(scores), labels, weights, ignore_index=IGNORED, reduction="none"
        )
        return (losses.sum((1, 2)) / (labels != IGNORED).sum((1, 2)).clamp(min=1)).mean()

    def meter(self) -> SegmentationMeter:
        """Return a new meter."""
        return SegmentationMeter(self.classes, self.cross_entropy)


def of_cells(labels: Tensor, height: int) -> Tensor:
    """Return the label of one pixel of each cell that scores stand for.

    To enlarge the scores first would take a fifth of a step's time, and neighbours hardly differ.

    Args:
        labels: (N, H, W).
        height: of the scores, a divisor of H; cells are as many pixels wide as high.
    """
    cell = labels.shape[1] // height
    if cell == 1:
        return labels
    # Another pixel in each image, since none lies in the middle.
    places = (divmod(k % cell**2, cell) for k in range(len(labels)))
    return torch.stack([own[y::cell, x::cell] for own, (y, x) in zip(labels, places, strict=True)])


def dice_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Return 1 - Dice, a mean over the classes that the batch has.

    Dice is twice the overlap of what is found and what is there over the sum of both, found by
    degrees (Milletari et al. 2016, section 3, with sums for sums of squares). It is close to the
    IoU that is wanted, in which a class of few pixels counts as much as one of many.

    Args:
        scores: (N, C, H, W), float32.
        labels: (N, H, W).
    """
    labelled = labels != IGNORED
    true = F.one_hot(labels.where(labelled, 0), scores.shape[1]).movedim(3, 1)  # as scores
    true = true * labelled.unsqueeze(1)
    found = scores.softmax(1) * labelled.unsqueeze(1)
    overlap, counts = (found * true).sum((0, 2, 3)), true.sum((0, 2, 3))
    losses = 1 - 2 * overlap / (found.sum((0, 2, 3)) + counts).clamp(min=1)
    there = counts > 0
    return (losses * there).sum() / there.sum().clamp(min=1)


def class_weights(shares: np.ndarray) -> list[float]:
    """Return weights that are higher for rarer classes, 1 in the mean over pixels.

    1 / ln(c + share), as ENet has them (Paszke et al. 2016, section 5.2), but with a higher c: the
    more a class that is hardly there counts, the more pixels of others are given to it, which
    costs IoU.

    Args:
        shares: of each class in the pixels, (C,).
    """
    weights = 1 / np.log(EVENNESS + shares)
    return (weights / (weights * shares).sum()).tolist()


# ---------------------------------------------------------------- flags


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags of data and network."""
    parser.add_argument(
        "--dataset", choices=SOURCES, default="street", help="what to train on (default street)"
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--network", metavar="NAME", help=f"res_unet (default), {', '.join(FINEST)}"
    )
    start = network.add_mutually_exclusive_group()
    start.add_argument(
        "--pretrained", action="store_true", help=f"FCN: start from {BODY}'s ImageNet weights"
    )
    start.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="start from a checkpoint, a run's folder or a state dict",
    )
    parser.add_argument(
        "--class_weights",
        action=BooleanOptionalAction,
        default=True,
        help="have rare classes count more in the loss",
    )
    parser.add_argument(
        "--coarse",
        type=closed_share,
        metavar="SHARE",
        help="--augment: share of the epochs, the first ones, with windows of half the size "
        f"(default {COARSE_SHARE}; 0 with --pretrained or --weights)",
    )


def flags_of(state: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that build a checkpoint's network; a bare state dict does not say."""
    return {"network": state.get("network")}


# ---------------------------------------------------------------- what train.py trains


def prepare(
    args: Namespace,
    runtime: Runtime,
    resumed: dict[str, Any] | None,
    weights: dict[str, Any] | None,
) -> Job:
    """Read the data and build the network that the flags ask for."""
    from networks import load_weights

    args.network = args.network or "res_unet"
    make_configs(args.network, 1)  # an unknown name is refused before data are read
    refuse_other_weights(args, resumed)
    args.data_root = find_folder(SOURCES, args.dataset, args.data_root)
    source = SOURCES[args.dataset]
    if args.coarse is None:
        args.coarse = 0.0 if args.pretrained or args.weights else COARSE_SHARE
    windows = replace(source.windows, coarse=int(args.coarse * args.epoch))
    source = replace(source, windows=windows)
    classes, loaders = read_loaders(args, runtime, resumed, source, read_split, make_loader)

    torch.manual_seed(args.seed)
    of_classes = None
    if args.class_weights:
        of_classes = class_weights(class_shares(loaders["train"].dataset.split))
    new = make_configs(args.network, len(classes))
    configs = choose_configs(args, new, resumed, weights)
    model = build_network(args.network, configs)
    if resumed is not None:
        load_weights(model, resumed["model_state"])
    else:
        start_from(model, args, weights)
    identity = {
        "configs": configs,
        "network": args.network,
        "dataset": args.dataset,
        "class_names": list(classes),
        "class_weights": of_classes,
        "flags": {"class_weights": args.class_weights, "coarse": args.coarse},
        "data_root": stored(args.data_root),
    }
    subject = f"pictures, {len(classes)} classes of pixels, from {args.data_root}"
    task = Segmentation(classes, of_classes)
    return Job(task, model, loaders, identity, [{"params": list(model.parameters())}], subject)


def start_from(model: Segmenter, args: Namespace, weights: dict[str, Any] | None) -> None:
    """Load the weights that the flags ask to start from."""
    if args.pretrained:
        from lab.pretrained import download_weights

        if not isinstance(model, FCN):
            raise UsageError(
                f"--pretrained is for {', '.join(FINEST)}; give {args.network} a checkpoint with "
                "--weights PATH"
            )
        hint = "train it from scratch, without --pretrained"
        new = load_fitting(model.body, download_weights(BODY, hint))
    elif weights is not None:
        bare = "configs" not in weights and isinstance(model, FCN)  # as torchvision publishes it
        new = load_fitting(model.body if bare else model, weights["model_state"])
    else:
        return
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in new))
    what = f"with {', '.join(layers)} new" if layers else "every layer that they have"
    say(f"Starting from {args.weights or 'ImageNet'}, {what}")


def suggestions(args: Namespace) -> list[list[str]]:
    """Return the arguments of visualize.py that are worth trying on a run."""
    return [["--type", kind] for kind in ("masks", *["upsampling"] * (args.network in FINEST))]


# ---------------------------------------------------------------- what test.py tests


def restore(state: dict[str, Any]) -> tuple[Segmentation, Segmenter]:
    """Return the task and the trained network of a loaded checkpoint, to label pictures with."""
    from networks import load_weights

    model = build_network(state["network"], state["configs"])
    load_weights(model, state["model_state"])
    return Segmentation(state["class_names"], state.get("class_weights")), model


def test_loader(
    state: dict[str, Any], data_root: Path | None, batch_size: int, runtime: Runtime
) -> DataLoader:
    """Return the whole pictures that a checkpoint's network can be tried on.

    Those of test; of a data set without it, those of val. A folder that is given may be laid out
    as any data set: a network of the drawn street is tested on CamVid's photographs.
    """
    dataset = state["dataset"]
    if data_root is not None:
        dataset = recognised(dataset, data_root)
    elif state.get("data_root") is not None:
        data_root = located(state["data_root"])
    data_root = find_folder(SOURCES, dataset, data_root)
    if SOURCES[dataset].prepare is not None:
        SOURCES[dataset].prepare(data_root)
    mode = SOURCES[dataset].modes(data_root)[-1]
    val_share = state.get("settings", {}).get("val_share", 0.1)
    split = read_split(dataset, data_root, mode, state["class_names"], val_share)
    say(f"Testing on {len(split.paths):,} pictures of {data_root}, {mode}")
    return make_loader(split, min(batch_size, WHOLE), device=runtime.device)


def report(args: Namespace, meter: SegmentationMeter, dataset: SegmentationDataset) -> None:
    """Print IoU and accuracy of each class and over all, and draw what was taken for what."""
    from lab import checkpoint
    from lab.runtime import place, start_as
    from tasks.segmentation.found import report_figures, save_results

    report_figures(args, meter)
    if args.save:
        state = checkpoint.load(checkpoint.find(args.ckpt_path, args.epoch))
        runtime = start_as(state, args.device, args.precision)
        model = place(restore(state)[1].eval(), runtime)
        save_results(dataset, model, runtime, args.ckpt_path / "results")


def read_images(
    args: Namespace, state: dict[str, Any], model: Segmenter, files: list[Path], runtime: Runtime
) -> None:
    """Print what pictures show, and draw it over them."""
    from tasks.segmentation.found import label_files

    label_files(args, state["class_names"], fold(model), files, runtime)


# ---------------------------------------------------------------- what visualize.py shows


def look(args: Namespace, state: dict[str, Any] | None, runtime: Runtime) -> Iterable["Picture"]:
    """Return the pictures of the view that `--type` names."""
    from lab.runtime import place
    from tasks.segmentation.views import VIEWS

    _, model = restore(state)
    return VIEWS[args.type](args, state, place(model, runtime).eval(), runtime)


FIELD = Field(
    add_flags=add_flags,
    flags_of=flags_of,
    prepare=prepare,
    restore=restore,
    test_loader=test_loader,
    report=report,
    read_images=read_images,
    views=("masks", "upsampling"),
    look=look,
    suggestions=suggestions,
    defaults={
        "epoch": 50,
        "batch_size": 32,
        "lr": 1.5e-2,
        "weight_decay": 1e-2,
        "optim_type": "muon",
        "schedule": "cosine",
        "clip_norm": 10.0,
        "val_interval": 5,
        "augment": True,
    },
)
