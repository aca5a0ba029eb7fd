"""Video: what happens in a clip, by networks that see time in different ways.

python train.py --task video --dataset motion --network cnn3d    # clips are drawn by itself
python train.py --task video --dataset tracks_sign --data_root FOLDER --network late_fusion
python train.py --task video --dataset clips --data_root FOLDER --frames 16 --stride 2
python train.py --task video --dataset order --weights checkpoints/motion    # fine-tune a run

`world/clips.py` draws the clips in which time is all that matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lab.flags import flag, positive_int
from tasks import PICTURE, Compared, Job, StartFlags, Task

# Each data set with the number of frames of its clips unless told otherwise.
DATASETS = {
    "motion": 16, "order": 16, "memory": 64, "tracks_direction": 15, "tracks_sign": 15, "clips": 16,
}  # fmt: skip
NETWORK_NAMES = (
    "single_frame", "early_fusion", "late_fusion", "late_fusion_mean", "slow_fusion", "cnn3d",
    "cnn_lstm", "non_local",
)  # fmt: skip
NETWORK = "cnn3d"  # unless told otherwise
_flag = partial(flag, group="network")


@dataclass(frozen=True)
class Flags(StartFlags):
    """Those of data and network."""

    dataset: str = flag("motion", DATASETS, "what to train on")
    frames: int | None = flag(
        None, positive_int, "of a clip (default: 16; of memory 64, of tracks 15)", metavar="N"
    )
    stride: int = flag(1, positive_int, "clips: take every S-th frame of a video", metavar="S")
    network: str | None = _flag(
        None, str, f"{', '.join(NETWORK_NAMES)} (default {NETWORK})", metavar="NAME"
    )
    width: int | None = _flag(
        None, positive_int, "channels of the first layer (default: what makes half a million "
        "parameters)", metavar="W",
    )  # fmt: skip


class Video(Task):
    name = "video"
    takes_pictures = False
    Flags = Flags
    defaults = {
        "lr": 3e-3, "weight_decay": 2e-2, "optim_type": "adamw", "schedule": "onecycle",
        "clip_norm": 1.0,
    }  # fmt: skip
    views = {
        "clip": PICTURE,
        "saliency": (*PICTURE, "target"),
        "attention": (*PICTURE, "position"),
        "cam": (*PICTURE, "layer_idx", "target"),
    }

    def flags_of(self, state: dict[str, Any]) -> dict[str, Any]:
        configs = state.get("configs", {})  # a bare state dict has none
        known = {name: configs[name] for name in ("frames", "width") if name in configs}
        return {"network": state.get("network"), **known}

    def summarise(self, runs: Mapping[str, Compared]) -> list[str]:
        return self.room("results").table_of_networks(runs)

    def worth_seeing(self, job: Job) -> list[list[str]]:
        views = ["clip", "saliency"] + ["attention"] * (job.identity["network"] == "non_local")
        return [["--type", view] for view in views]


TASK = Video()
