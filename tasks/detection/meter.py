"""How good a detector is: COCO's average precision, and that of the sign detection benchmark.

    meter = DetectionMeter(classes)
    meter.update(network, images, targets)  # by network.detect(images), see below
    meter.compute(runtime)                  # {"ap": 0.61, "ap50": 0.83, ...}
    meter.by_class                          # average precision of each class, by name

All sums are torchmetrics' (MeanAveragePrecision over faster-coco-eval). AP of a class is the area
under its curve of precision over recall, detections taken by falling score, each right if it
overlaps a box of its class, not yet found, by an IoU of at least a threshold (Lin et al. 2014).

| figure | mean over |
|---|---|
| `ap` | classes, and IoU from 0.5 to 0.95 in steps of 0.05 |
| `ap50`, `ap75` | classes, at one IoU |
| `ap_small`, `ap_medium`, `ap_large` | as `ap`, boxes below 32x32, to 96x96, and above |
| `sign_ap50` | nothing: every class counts as "a sign" |
| `category_ap50` | the benchmark's prohibitory, mandatory, danger, other (Houben et al. 2013) |
| `prohibitory_ap50` ... | nothing: the classes of a category count as one |

The last three kinds are of signs alone. A figure of which there is no box is left out.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision

from lab.runtime import Runtime
from world.faces import FACES, category

SIZES = ("small", "medium", "large")


def are_signs(classes: Sequence[str]) -> bool:
    """True where all classes are traffic signs of `world.faces`."""
    return set(classes) <= FACES.keys()


class DetectionMeter:
    """Average precision of a detector on whole pictures.

    A network's `detect(images)`, images (N, 3, H, W) in [-1, 1], returns a dict for each image:
    boxes (k, 4), left, top, right, bottom in its pixels; scores (k,), the likeliest first or not;
    labels int64 (k,).

    Attributes:
        classes: names, by label.
        detections, targets: of the pictures seen so far, on the CPU; after `compute` those of all
            processes.
        figures: what `compute` returned.
        by_class: AP of each class that has boxes, by name; after `compute`.
        curves: precision at recalls 0, 0.01, ..., 1, IoU 0.5, (101,), by name: of the categories
            of signs and of "a sign", else of each class; after `compute`.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = tuple(classes)
        self.detections: list[dict[str, Tensor]] = []
        self.targets: list[dict[str, Tensor]] = []
        self.figures: dict[str, float] = {}
        self.by_class: dict[str, float] = {}
        self.curves: dict[str, np.ndarray] = {}

    def update(self, network: nn.Module, images: Tensor, targets: list[dict[str, Tensor]]) -> None:
        """Search a batch of pictures."""
        self.detections += [_on_cpu(detections) for detections in network.detect(images)]
        self.targets += [_on_cpu(target) for target in targets]

    def compute(self, runtime: Runtime) -> dict[str, float]:
        """Return the figures by name, over the pictures of all processes."""
        shares = runtime.gather((self.detections, self.targets))
        self.detections = [own for detections, _ in shares for own in detections]
        self.targets = [target for _, targets in shares for target in targets]
        every = torch.arange(len(self.classes))
        figures, self.by_class, self.curves = self._measure(every, self.classes)
        if are_signs(self.classes):
            signs, _, curves = self._measure(torch.zeros_like(every), ("a sign",), at50=True)
            categories = [category(name) for name in self.classes]
            names = sorted(set(categories))
            of_category = torch.tensor([names.index(name) for name in categories])
            merged, own, more = self._measure(of_category, names, at50=True)
            figures |= {"sign_ap50": signs["ap50"], "category_ap50": merged["ap50"]}
            figures |= {f"{name}_ap50": value for name, value in own.items()}
            self.curves = curves | more
        self.figures = figures
        return figures

    def _measure(
        self, labels: Tensor, names: Sequence[str], at50: bool = False
    ) -> tuple[dict[str, float], dict[str, float], dict[str, np.ndarray]]:
        """Return figures, AP by class, and curves.

        Args:
            labels: what each label counts as.
            names: of what they count as.
            at50: at an IoU of 0.5 alone.
        """
        metric = MeanAveragePrecision(
            backend="faster_coco_eval",
            iou_thresholds=[0.5] if at50 else None,
            class_metrics=True,
            extended_summary=True,
            sync_on_compute=False,  # all processes have gathered all
        )
        metric.warn_on_many_detections = False
        detections, targets = (
            [own | {"labels": labels[own["labels"]]} for own in every]
            for every in (self.detections, self.targets)
        )
        targets = [own | {"iscrowd": own["ignored"].long()} for own in targets]
        metric.update(detections, targets)
        result = metric.compute()
        figures = {"ap": result["map"], "ap50": result["map_50"], "ap75": result["map_75"]}
        figures |= {f"ap_{size}": result[f"map_{size}"] for size in SIZES}
        present = result["classes"].reshape(-1).tolist()
        each = zip(present, result["map_per_class"].reshape(-1).tolist(), strict=True)
        # (IoU thresholds, recalls, classes, sizes, most detections): at 0.5, any size, the most
        precision = result["precision"][0, :, :, 0, -1].numpy()
        curves = {names[label]: precision[:, k] for k, label in enumerate(present)}
        return (
            {name: float(value) for name, value in figures.items() if value >= 0},
            {names[label]: value for label, value in each if value >= 0},
            {name: curve for name, curve in curves.items() if curve[0] >= 0},
        )


def _on_cpu(record: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what is known of a picture, out of the device and of inference mode."""
    return {
        name: (value.float() if value.is_floating_point() else value).cpu().clone()
        for name, value in record.items()
    }
