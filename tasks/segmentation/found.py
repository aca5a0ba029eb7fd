"""What test.py prints and draws of labelled pixels."""

from argparse import Namespace

from lab.console import say
from tasks.segmentation.data import SegmentationDataset
from tasks.segmentation.labels import CAMVID_CLASSES
from tasks.segmentation.meter import SegmentationMeter

# What a street mostly consists of.
LARGE = ("sky", "building", "road", "tree", "car")


def report_figures(args: Namespace, meter: SegmentationMeter, dataset: SegmentationDataset) -> None:
    """Print IoU and accuracy of each class and over all, and draw what was taken for what."""
    say_figures(meter)


def say_figures(meter: SegmentationMeter) -> None:
    """Print a meter's figures: a class a line, then all together."""
    true = meter.matrix.sum(1)
    accuracies = (meter.matrix.diag().double() / true).tolist()
    shares = (true.double() / true.sum()).tolist()
    width = max(14, *map(len, meter.classes))
    say(f"{'class':{width}}      IoU  accuracy  of pixels")
    for row in zip(meter.classes, meter.iou.tolist(), accuracies, shares, strict=True):
        say("{:{width}}  {:7.2%}   {:7.2%}    {:7.2%}".format(*row, width=width))
    for name, value in meter.figures.items():
        if name != "loss":
            say(f"{name.replace('_', ' '):{width}}  {value:7.2%}")
    if meter.classes == CAMVID_CLASSES:
        large = meter.iou[[CAMVID_CLASSES.index(name) for name in LARGE]].nanmean()
        say(f"mean IoU of {', '.join(LARGE)}: {large:.2%}")
