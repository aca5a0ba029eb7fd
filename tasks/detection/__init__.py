"""Detection: what is where in a picture. Traffic signs, for one, in streets.

python train.py --task detection --network center_net       # on streets, drawn by itself
python train.py --task detection --dataset gtsdb --weights checkpoints/detection
python train.py --task detection --dataset voc --network ssdlite320_mobilenet_v3_large
python test.py --task detection --image photo.jpg --read checkpoints/default    # found, then read

The parts of TinySSD have the names of the book that teaches it (`ssd`, `boxes`); `centernet` finds
small signs better. `data` reads pictures with boxes, `meter` measures what is found in them.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.flags import flag
from tasks import PICTURE, Job, StartFlags, Task, pretrained, promised

DATASETS = ("street", "gtsdb", "voc", "coco", "yolo", "labelme", "banana")
OWN = ("tiny_ssd", "center_net")  # networks of ours, the one first that is trained unasked


@dataclass(frozen=True)
class Flags(StartFlags):
    """Those of data and network."""

    dataset: str = flag("street", DATASETS, "what to train on")
    network: str | None = flag(
        None, str, f"{OWN[0]} (default), {', '.join(OWN[1:])}, or one of torchvision's detectors: "
        "fasterrcnn_mobilenet_v3_large_320_fpn, ssdlite320_mobilenet_v3_large and so on",
        metavar="NAME", group="network",
    )  # fmt: skip
    pretrained: bool = pretrained("torchvision's: start from its COCO weights")


class Detection(Task):
    name = "detection"
    Flags = Flags
    defaults = {
        "epoch": 20, "batch_size": 16, "lr": 2e-3, "weight_decay": 1e-2, "optim_type": "adamw",
        "schedule": "onecycle", "clip_norm": 10.0, "val_interval": 5, "augment": True,
    }  # fmt: skip
    views = {
        "boxes": PICTURE, "anchors": PICTURE, "regions": PICTURE,
        "cam": (*PICTURE, "layer_idx", "target"),
    }  # fmt: skip
    reads = films = True

    def worth_seeing(self, job: Job) -> list[list[str]]:
        views = ["boxes", "regions"] + ["anchors"] * (job.identity["network"] == "tiny_ssd")
        return [["--type", view] for view in views]


TASK = Detection()

__getattr__ = promised(
    __name__,
    {
        "boxes": (
            "assign_anchor_to_bbox", "box_iou", "multibox_detection", "multibox_prior",
            "multibox_target", "nms", "offset_boxes", "offset_inverse",
        ),
        "ssd": (
            "TinySSD", "base_net", "bbox_predictor", "cls_predictor", "concat_preds",
            "down_sample_blk", "flatten_pred",
        ),
    },
)  # fmt: skip
