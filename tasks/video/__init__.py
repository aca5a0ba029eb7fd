"""Video: what happens in a clip, by networks that see time in different ways.

    python train.py --task video --dataset motion --network cnn3d    # clips are drawn by itself
    python train.py --task video --dataset tracks_sign --data_root FOLDER --network late_fusion
    python train.py --task video --dataset clips --data_root FOLDER --frames 16 --stride 2

`networks` has the networks, `data` the sources of clips, `world/clips.py` draws those in which
time is all that matters.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lab.console import LabError, positive_int, say
from lab.folders import located, stored
from lab.runtime import Runtime, check_batch_size
from tasks import Entry, Field, Job
from tasks.classification import Classification, ClassificationMeter
from tasks.video.data import SOURCES, ClipDataset, make_loader, modes_of, read_split
from tasks.video.networks import NETWORKS, SingleFrame, VideoNetwork, build_network, make_configs

if TYPE_CHECKING:
    from lab.pictures import Film, Picture

TESTED = 64  # clips a batch, at the most: those of 64 frames are large


class Video(Classification):
    """Cross-entropy, ranked by accuracy; the inputs are clips (N, 3, T, H, W)."""

    name = "video"

    def meter(self) -> "VideoMeter":
        """Return a new meter."""
        return VideoMeter()


class VideoMeter(ClassificationMeter):
    """Also, of a network that sees a single frame: how often it is right about each by itself.

    Attributes:
        frame_accuracy: over all frames of all clips; None of other networks, or before `compute`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.frame_accuracy: float | None = None
        self._right: list[Tensor] = []

    def update(self, model: nn.Module, clips: Tensor, labels: Tensor) -> None:
        """Classify a batch."""
        super().update(model, clips, labels)
        if isinstance(model, SingleFrame):
            right = model.every_frame(clips).argmax(2) == labels[:, None]  # (N, T)
            self._right.append(right.double().mean(1))

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return `loss` and `accuracy`, and `frame_accuracy` where there is one."""
        figures = super().compute(runtime)
        if not self._right:
            return figures
        right = torch.cat(self._right)
        total, count = runtime.total(torch.stack([right.sum(), right.new_tensor(len(right))]))
        self.frame_accuracy = float(total / count)
        return figures | {"frame_accuracy": self.frame_accuracy}


# ---------------------------------------------------------------- flags


def add_flags(parser: ArgumentParser) -> None:
    """Add the flags of data and network."""
    parser.add_argument(
        "--dataset", choices=SOURCES, default="motion", help="what to train on (default motion)"
    )
    parser.add_argument(
        "--frames",
        type=positive_int,
        metavar="N",
        help="of a clip (default: 16; of memory 64, of tracks 15)",
    )
    parser.add_argument(
        "--stride",
        type=positive_int,
        default=1,
        metavar="S",
        help="clips: take every S-th frame of a video (default 1)",
    )
    network = parser.add_argument_group("network")
    network.add_argument("--network", metavar="NAME", help=f"{', '.join(NETWORKS)} (default cnn3d)")
    network.add_argument(
        "--width",
        type=positive_int,
        metavar="W",
        help="channels of the first layer (default: what makes half a million parameters)",
    )


def flags_of(state: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that build a checkpoint's network."""
    configs = state.get("configs", {})
    known = {name: configs[name] for name in ("frames", "width") if name in configs}
    return {"network": state.get("network"), **known}


# ---------------------------------------------------------------- what train.py trains


def prepare(
    args: Namespace,
    runtime: Runtime,
    resumed: dict[str, Any] | None,
    weights: dict[str, Any] | None,
) -> Job:
    """Read the clips and build the network that the flags ask for."""
    from datasets import check_classes, find_folder
    from lab.batches import check_count
    from networks import load_weights

    args.network = args.network or "cnn3d"
    source = SOURCES[args.dataset]
    args.frames = args.frames or source.frames
    make_configs(args.network, 2, args.frames, args.width)  # refused before clips are read
    args.data_root = find_folder(SOURCES, args.dataset, args.data_root)
    check_batch_size(args.batch_size, runtime, normalises=True)
    if runtime.rank == 0 and source.prepare is not None:
        source.prepare(args.data_root, args.frames)
    runtime.wait_for_all()

    loaders = {}
    for mode in modes_of(args.dataset, args.data_root):
        split = read_split(
            args.dataset, args.data_root, mode, args.frames, args.stride, args.val_share
        )
        training = mode == "train"
        loaders[mode] = make_loader(
            split,
            args.batch_size if training else TESTED * runtime.world_size,
            shuffle=training,
            augment=args.augment and training,
            seed=args.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            device=runtime.device,
        )
    classes = loaders["train"].dataset.classes
    check_count(len(loaders["train"].dataset), runtime.world_size, normalises=True)

    torch.manual_seed(args.seed)
    configs = make_configs(args.network, len(classes), args.frames, args.width)
    if resumed is not None:
        check_classes(classes, resumed["class_names"], args.data_root, args.resume)
        if (args.network, configs) != (resumed["network"], resumed["configs"]):
            raise LabError(
                f"{args.resume} holds another network: leave out --network, --frames and --width"
            )
    model = build_network(args.network, configs)
    if resumed is not None:
        load_weights(model, resumed["model_state"])
    identity = {
        "configs": configs,
        "network": args.network,
        "dataset": args.dataset,
        "class_names": list(classes),
        "data_root": stored(args.data_root),
        "flags": {"stride": args.stride},
    }
    subject = f"clips of {args.frames} frames, {len(classes)} classes, from {args.data_root}"
    parameters = [{"params": list(model.parameters())}]
    return Job(Video(), model, loaders, identity, parameters, subject)


# ---------------------------------------------------------------- what test.py tests


def restore(state: dict[str, Any]) -> tuple[Video, VideoNetwork]:
    """Return the task and the trained network of a loaded checkpoint."""
    from networks import load_weights

    model = build_network(state["network"], state["configs"])
    load_weights(model, state["model_state"])
    return Video(), model


def test_loader(
    state: dict[str, Any], data_root: Path | None, batch_size: int, runtime: Runtime
) -> DataLoader:
    """Return the clips that a checkpoint's network can be tried on.

    Those of test; of a data set without it, those of val.
    """
    from datasets import check_classes

    dataset, frames = state["dataset"], state["configs"]["frames"]
    if data_root is None:
        data_root = located(state["data_root"])
    if SOURCES[dataset].prepare is not None:
        SOURCES[dataset].prepare(data_root, frames)
    mode = modes_of(dataset, data_root)[-1]
    stride = state.get("flags", {}).get("stride", 1)
    val_share = state.get("settings", {}).get("val_share", 0.1)
    split = read_split(dataset, data_root, mode, frames, stride, val_share)
    check_classes(split.classes, state["class_names"], data_root / mode, "the network")
    return make_loader(split, min(batch_size, TESTED), device=runtime.device)


def report(args: Namespace, meter: VideoMeter, dataset: ClipDataset) -> None:
    """Print a table of classes and the accuracy, and draw what was confused with what."""
    from tasks.video.found import report_clips

    report_clips(args, meter, dataset)
    if meter.frame_accuracy is not None:
        say(f"accuracy of each frame by itself: {meter.frame_accuracy:.2%}")


def find_files(sources: Sequence[str], folder: Path) -> list[Path]:
    """Return the clips that `--image` names."""
    from tasks.video.files import clip_files

    return clip_files(sources)


def read_images(
    args: Namespace, state: dict[str, Any], model: nn.Module, files: list[Path], runtime: Runtime
) -> None:
    """Print the likeliest classes of clips, and draw those on a sheet."""
    from tasks.video.found import read_files

    read_files(args, state, model, files, runtime)


def summarise(entries: Mapping[str, Entry]) -> list[str]:
    """Return a table of networks over data sets."""
    from tasks.video.found import table_of_networks

    return table_of_networks(entries)


# ---------------------------------------------------------------- what visualize.py shows


def look(
    args: Namespace, state: dict[str, Any] | None, runtime: Runtime
) -> Iterable["Picture | Film"]:
    """Return the pictures of the view that `--type` names."""
    from tasks.video.views import VIEWS

    _, model = restore(state)
    return VIEWS[args.type](args, state, model.to(runtime.device).eval(), runtime)


def suggestions(args: Namespace) -> list[list[str]]:
    """Return the arguments of visualize.py that are worth trying on a run."""
    kinds = ["clip", "saliency"] + ["attention"] * (args.network == "non_local")
    return [["--type", kind] for kind in kinds]


FIELD = Field(
    add_flags=add_flags,
    flags_of=flags_of,
    prepare=prepare,
    restore=restore,
    test_loader=test_loader,
    report=report,
    read_images=read_images,
    find_files=find_files,
    views=("clip", "saliency", "attention"),
    look=look,
    summarise=summarise,
    suggestions=suggestions,
    defaults={
        "epoch": 10,
        "batch_size": 32,
        "lr": 3e-3,
        "weight_decay": 2e-2,
        "optim_type": "adamw",
        "schedule": "onecycle",
        "clip_norm": 1.0,
    },
)
