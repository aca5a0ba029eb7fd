"""Segmentation: what every pixel shows. Of streets, drawn and real, for one.

python train.py --task segmentation                          # on streets, drawn by itself
python train.py --task segmentation --dataset camvid --data_root FOLDER --weights RUN
python train.py --task segmentation --dataset voc --network fcn_8s --pretrained
python test.py --task segmentation --data_root FOLDER        # CamVid's, after the drawn ones
python test.py --task segmentation --image photo.jpg

Beside the rooms that every task has, `annotations` finds pictures with their label images, `labels`
reads those, `windows` cuts what is learned from. The tools that have names of the book that teaches
them are in `voc` and `upsampling`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lab.flags import closed_share, flag, positive_int
from tasks import PICTURE, Job, StartFlags, Task, pretrained, promised

DATASETS = ("street", "camvid", "voc", "folder")
NETWORK = "res_unet"  # unless told otherwise
FCNS = ("fcn_32s", "fcn_16s", "fcn_8s")
BODY = "resnet18"  # of torchvision's, FCN's
# Of the epochs, unless told otherwise. What a street looks like is learned as well from windows of
# a quarter of the pixels, at a third of the cost; where things end, in the other epochs.
COARSE_SHARE = 0.75


@dataclass(frozen=True)
class Flags(StartFlags):
    """Those of data, network and loss."""

    dataset: str = flag("street", DATASETS, "what to train on")
    network: str | None = flag(
        None, str, f"{NETWORK} (default), {', '.join(FCNS)}", metavar="NAME", group="network"
    )
    width: int | None = flag(
        None, positive_int, f"{NETWORK}: channels at a stride of 4 (default 32)", metavar="W",
        group="network",
    )  # fmt: skip
    pretrained: bool = pretrained(f"FCN: start from {BODY}'s ImageNet weights")
    class_weights: bool = flag(True, bool, "have rare classes count more in the loss")
    coarse: float | None = flag(
        None, closed_share, "--augment: share of the epochs, the first ones, with windows of half "
        f"the size (default {COARSE_SHARE}; 0 with --pretrained or --weights)", metavar="SHARE",
    )  # fmt: skip


class Segmentation(Task):
    name = "segmentation"
    Flags = Flags
    defaults = {
        "epoch": 14, "batch_size": 32, "lr": 1.2e-2, "weight_decay": 1e-2, "optim_type": "muon",
        "warmup": 0.5, "ema": 0.995, "clip_norm": 10.0, "val_interval": 7, "augment": True,
    }  # fmt: skip
    views = {
        "masks": PICTURE, "upsampling": PICTURE,
        "cam": (*PICTURE, "layer_idx", "target", "position"),
    }  # fmt: skip
    films = True

    def flags_of(self, state: dict[str, Any]) -> dict[str, Any]:
        width = state.get("configs", {}).get("width")  # a bare state dict has no configs
        return super().flags_of(state) | {"width": width}

    def worth_seeing(self, job: Job) -> list[list[str]]:
        views = ("masks", *["upsampling"] * (job.identity["network"] in FCNS))
        return [["--type", view] for view in views]


TASK = Segmentation()
__getattr__ = promised(
    __name__,
    {
        "networks": ("FCN", "FCNConfig"),
        "labels": ("VOC_CLASSES", "VOC_COLORMAP"),
        "upsampling": ("bilinear_kernel", "kernel2matrix", "trans_conv"),
        "voc": ("VOCSegDataset", "read_voc_images", "voc_colormap2label", "voc_label_indices",
                "voc_rand_crop"),
    },
)  # fmt: skip
