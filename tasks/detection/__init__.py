"""Detection: what is where in a picture. Traffic signs, for one, in streets.

    python train.py --task detection --network center_net       # on streets, drawn by itself
    python train.py --task detection --dataset gtsdb --weights checkpoints/default
    python train.py --task detection --dataset voc --network ssdlite320_mobilenet_v3_large
    python test.py --image photo.jpg --read checkpoints/signs   # signs found, then read

The parts of TinySSD have the names of the book that teaches it (`ssd`, `boxes`); `centernet` finds
small signs better. `data` reads pictures with boxes, `meter` measures what is found in them.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from datasets import find_folder
from lab.console import UsageError, say
from lab.folders import located, stored
from lab.runtime import Runtime
from networks import fold, load_fitting
from tasks import Field, Job
from tasks.detection.boxes import (
    assign_anchor_to_bbox,
    box_iou,
    multibox_detection,
    multibox_prior,
    multibox_target,
    nms,
    offset_boxes,
    offset_inverse,
)
from tasks.detection.data import (
    SOURCES,
    DetectionDataset,
    make_loader,
    read_split,
)
from tasks.detection.detector import Detector, Targets
from tasks.detection.meter import DetectionMeter
from tasks.detection.networks import NETWORKS, build_network, make_configs
from tasks.detection.ssd import (
    TinySSD,
    base_net,
    bbox_predictor,
    cls_predictor,
    concat_preds,
    down_sample_blk,
    flatten_pred,
)
from tasks.windows import WHOLE, choose_configs, read_loaders, refuse_other_weights
from world.faces import FACES

if TYPE_CHECKING:
    from lab.pictures import Picture

__all__ = [
    "FIELD",
    "TinySSD",
    "assign_anchor_to_bbox",
    "base_net",
    "bbox_predictor",
    "box_iou",
    "cls_predictor",
    "concat_preds",
    "down_sample_blk",
    "flatten_pred",
    "multibox_detection",
    "multibox_prior",
    "multibox_target",
    "nms",
    "offset_boxes",
    "offset_inverse",
]


# ---------------------------------------------------------------- task


class Detection:
    """The network's own losses, ranked by average precision at an IoU of 0.5.

    Args:
        classes: names, by label. Of signs, that of "a sign" ranks: there are too few of some.
    """

    name = "detection"

    def __init__(self, classes: Iterable[str]):
        self.classes = tuple(classes)
        self.ranks_by = "sign_ap50" if set(self.classes) <= FACES.keys() else "ap50"

    def loss(
        self, model: Detector, images: Tensor, targets: list[Targets]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the sum of a network's losses, and each of them."""
        losses = model(images, targets)
        return sum(losses.values()), losses

    def meter(self) -> DetectionMeter:
        """Return a new meter."""
        return DetectionMeter(self.classes)


# ---------------------------------------------------------------- flags


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags of data and network."""
    parser.add_argument(
        "--dataset", choices=SOURCES, default="street", help="what to train on (default street)"
    )
    network = parser.add_argument_group("network")
    network.add_argument(
        "--network",
        metavar="NAME",
        help="tiny_ssd (default), center_net, or one of torchvision's detectors: "
        "fasterrcnn_mobilenet_v3_large_320_fpn, ssdlite320_mobilenet_v3_large and so on",
    )
    start = network.add_mutually_exclusive_group()
    start.add_argument(
        "--pretrained", action="store_true", help="torchvision's: start from its COCO weights"
    )
    start.add_argument(
        "--weights",
        type=Path,
        metavar="PATH",
        help="start from a checkpoint, a run's folder or a state dict",
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

    args.network = args.network or "tiny_ssd"
    make_configs(args.network, 1, signs=False)  # an unknown name is refused before data are read
    refuse_other_weights(args, resumed)
    args.data_root = find_folder(SOURCES, args.dataset, args.data_root)
    source = SOURCES[args.dataset]
    classes, loaders = read_loaders(args, runtime, resumed, source, read_split, make_loader)

    torch.manual_seed(args.seed)
    task = Detection(classes)
    new = make_configs(args.network, len(classes), signs=task.ranks_by == "sign_ap50")
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
        "data_root": stored(args.data_root),
    }
    subject = f"pictures, {len(classes)} classes of boxes, from {args.data_root}"
    return Job(task, model, loaders, identity, [{"params": list(model.parameters())}], subject)


def start_from(model: Detector, args: Namespace, weights: dict[str, Any] | None) -> None:
    """Load the weights that the flags ask to start from."""
    from tasks.detection.published import Published

    if args.pretrained:
        from lab.pretrained import download_weights

        if not isinstance(model, Published):
            raise UsageError(
                f"--pretrained is for torchvision's networks; give {args.network} a checkpoint "
                "with --weights PATH"
            )
        hint = "train it from scratch, without --pretrained"
        new = load_fitting(model.network, download_weights(args.network, hint))
    elif weights is not None:
        body = model
        if "configs" not in weights and isinstance(model, Published):  # as torchvision publishes it
            body = model.network
        new = load_fitting(body, weights["model_state"])
    else:
        return
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name in new))
    say(
        f"Starting from {args.weights or 'COCO'}, "
        + (f"with {', '.join(layers)} new" if layers else "every layer")
    )


def suggestions(args: Namespace) -> list[list[str]]:
    """Return the arguments of visualize.py that are worth trying on a run."""
    kinds = ["boxes", "regions"] + ["anchors"] * (args.network == "tiny_ssd")
    return [["--type", kind] for kind in kinds]


# ---------------------------------------------------------------- what test.py tests


def restore(state: dict[str, Any]) -> tuple[Detection, Detector]:
    """Return the task and the trained network of a loaded checkpoint, to search pictures with."""
    from networks import load_weights

    model = build_network(state["network"], state["configs"])
    load_weights(model, state["model_state"])
    return Detection(state["class_names"]), model


def test_loader(
    state: dict[str, Any], data_root: Path | None, batch_size: int, runtime: Runtime
) -> DataLoader:
    """Return the whole pictures that a checkpoint's network can be tried on.

    Those of test; of a data set without it, those of val.
    """
    dataset = state["dataset"]
    if data_root is None and state.get("data_root") is not None:
        data_root = located(state["data_root"])
    data_root = find_folder(SOURCES, dataset, data_root)
    if SOURCES[dataset].prepare is not None:
        SOURCES[dataset].prepare(data_root)
    mode = SOURCES[dataset].modes(data_root)[-1]
    val_share = state.get("settings", {}).get("val_share", 0.1)
    split = read_split(dataset, data_root, mode, state["class_names"], val_share)
    return make_loader(split, min(batch_size, WHOLE), device=runtime.device)


def report(args: Namespace, meter: DetectionMeter, dataset: DetectionDataset) -> None:
    """Print average precision of each class and over all, and draw precision over recall."""
    from tasks.detection.found import report_figures

    report_figures(args, meter, dataset)


def read_images(
    args: Namespace, state: dict[str, Any], model: Detector, files: list[Path], runtime: Runtime
) -> None:
    """Print what is found in pictures, and draw it into them."""
    from tasks.detection.found import search_files

    search_files(args, state["class_names"], folded(state, model), files, runtime)


# ---------------------------------------------------------------- what visualize.py shows


def look(args: Namespace, state: dict[str, Any] | None, runtime: Runtime) -> Iterable["Picture"]:
    """Return the pictures of the view that `--type` names."""
    from tasks.detection.views import VIEWS

    model = folded(state, restore(state)[1])
    return VIEWS[args.type](args, state, model.to(runtime.device).eval(), runtime)


def folded(state: dict[str, Any], model: Detector) -> Detector:
    """Return a checkpoint's network as quick as it can be, to the last bits the same.

    Figures are of the network as trained, so that test.py's are train.py's.
    """
    # torchvision's do not all list their layers in the order of use.
    return fold(model) if state["network"] in NETWORKS else model


FIELD = Field(
    add_flags=add_flags,
    flags_of=flags_of,
    prepare=prepare,
    restore=restore,
    test_loader=test_loader,
    report=report,
    read_images=read_images,
    test_flags=("read",),
    views=("boxes", "anchors", "regions"),
    look=look,
    suggestions=suggestions,
    defaults={
        "epoch": 20,
        "batch_size": 16,
        "lr": 2e-3,
        "weight_decay": 1e-2,
        "optim_type": "adamw",
        "schedule": "onecycle",
        "clip_norm": 10.0,
        "augment": True,
    },
)
