"""What visualize.py shows of a detector: truth and found, anchors, and what happens to a region."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou, roi_align, roi_pool

from lab.console import LabError, say
from lab.images import as_input
from lab.pictures import Colours, Grid, Picture, Tile, frame, shorten
from lab.registry import build
from lab.runtime import Runtime
from looking import cam
from looking.choice import class_index
from looking.insight import saliency_of, spatial_layers
from tasks import ViewFlags
from tasks.annotated import chosen_pictures
from tasks.detection.boxes import assign_anchor_to_bbox
from tasks.detection.detector import SHOWN_SCORE, Detector
from tasks.detection.networks import NETWORKS, folded
from tasks.detection.results import shown_of
from tasks.detection.ssd import HEIGHT, RATIOS, TinySSD
from tasks.trained import Trained

SHOWN_REGIONS = 30  # proposals drawn
TIMED_REGIONS = 2000  # as many as R-CNN looked at
BINS = 7  # of a region, a side
WARPED = 64  # pixels a side that R-CNN's crops are resized to
FASTER = "fasterrcnn_mobilenet_v3_large_320_fpn"


@torch.inference_mode()
def view_boxes(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Truth and found side by side; of what is found, the IoU with the nearest true box."""
    classes, network, rows = trained.classes, folded(trained.network), []
    for picture, target, name in chosen_pictures(flags, trained):
        (detections,) = network.detect(as_input(picture).to(trained.runtime.device))
        marks = []
        for box, score, label in shown_of(detections):
            text = f"{shorten(classes[label])} {score:.0%}"
            if target is not None and len(target["boxes"]):
                overlap = box_iou(torch.tensor([box]), target["boxes"]).max()
                text += f", IoU {overlap:.2f}"
            marks.append(frame(box, "magenta", text))
        tiles = [Tile(picture, "" if target else shorten(name), marks=tuple(marks))]
        if target is not None:
            truth = zip(target["boxes"].tolist(), target["labels"].tolist(), strict=True)
            there = tuple(frame(box, "lime", shorten(classes[label])) for box, label in truth)
            tiles.insert(0, Tile(picture, note=shorten(name), marks=there))
        rows.append(tiles)
    columns = ["what is there", f"what is found (score {SHOWN_SCORE} and above)"] if target else []
    grid = Grid(rows, columns=columns, side=3.2)
    yield Picture("boxes/boxes.jpg", "True boxes and found ones", (grid,))


@torch.inference_mode()
def view_anchors(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """The anchors of each scale in the middle of a picture, and those that have an object."""
    if not isinstance(trained.network, TinySSD):
        raise LabError(f"{trained.state['network']} has no anchors of ours to show: train tiny_ssd")
    ((picture, target, name),) = chosen_pictures(flags, trained, 1)
    network, images = folded(trained.network), as_input(picture).to(trained.runtime.device)
    filled, tiles = network.fill(images), []
    middle = torch.tensor([images.shape[3], images.shape[2]]) / 2
    scale = torch.tensor([filled.shape[3], filled.shape[2]] * 2, dtype=torch.float32)
    truth = torch.zeros(0, 4) if target is None else target["boxes"][~target["ignored"]]
    maps = network.anchors(network.maps(filled), *filled.shape[2:])
    boxes = [anchors[0].cpu() * scale for anchors in maps]
    assigned = assign_anchor_to_bbox(truth, torch.cat(boxes)).split([len(each) for each in boxes])
    for anchors, own, sizes in zip(boxes, assigned, network.config.sizes, strict=True):
        places = anchors.view(-1, len(sizes) + len(RATIOS) - 1, 4)
        distances = (places[:, 0, :2] + places[:, 0, 2:]) / 2 - middle
        nearest = places[distances.square().sum(1).argmin()]
        marks = [frame(box, "magenta") for box in nearest.tolist()]
        marks += [frame(box, "yellow") for box in anchors[own >= 0].tolist()]
        marks += [frame(box, "lime") for box in truth.tolist()]
        sides = " and ".join(f"{HEIGHT * size:.0f}" for size in sizes)
        note = f"{len(anchors):,} anchors, {sides} px; {int((own >= 0).sum())} with an object"
        tiles.append(Tile(picture, note, marks=tuple(marks)))
    title = "anchors of one place (magenta), with an object (yellow), true boxes (green)"
    rows = [tiles[start : start + 2] for start in range(0, len(tiles), 2)]
    yield Picture("anchors/anchors.jpg", f"{shorten(name)}: {title}", (Grid(rows, side=3.2),))


@torch.inference_mode()
def view_regions(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """The R-CNN family: proposals, one region pooled and aligned, seconds a photograph."""
    ((picture, _, name),) = chosen_pictures(flags, trained, 1)
    network, images = folded(trained.network), as_input(picture).to(trained.runtime.device)
    (detections,) = network.detect(images, threshold=0.0)
    boxes = detections["boxes"][:SHOWN_REGIONS]
    if not len(boxes):
        raise LabError("the network proposes no region in this picture")
    features, stride = network.features(images)
    rois = [boxes[:1].float()]
    pooled = roi_pool(features.float(), rois, BINS, 1 / stride)[0]
    aligned = roi_align(features.float(), rois, BINS, 1 / stride, 2, aligned=True)[0]
    channel = int(aligned.std((1, 2)).argmax())  # the map that has most to say about it
    whole = features[0, channel].float().cpu().numpy()
    bins = [values[channel].cpu().numpy() for values in (pooled, aligned)]
    high = max(float(whole.max()), 1e-6)
    marks = [frame(box, "cyan") for box in boxes[1:].tolist()]
    marks.append(frame(boxes[0].tolist(), "magenta", "the likeliest"))
    on_map = frame([edge / stride for edge in boxes[0].tolist()], "magenta")
    seconds = time_family(network, images, detections["boxes"], trained.runtime)
    for method, value in seconds.items():
        say(f"{method:70s} {value:7.3f} s a photograph")
    table = "\n".join(f"{method}: {value:.3f} s" for method, value in seconds.items())
    values = Grid(
        [[Tile(whole, f"map {channel}, stride {stride}", marks=(on_map,)),
          Tile(bins[0], "RoI pooling\nwhole positions"),
          Tile(bins[1], "RoIAlign\nbetween positions")]],
        side=2.5, colours=Colours("viridis", min(0.0, float(whole.min())), high, "activation"),
    )  # fmt: skip
    title = f"{shorten(name)}: regions proposed, the likeliest on a feature map\n{table}"
    proposed = Grid([[Tile(picture, marks=tuple(marks))]], side=4)
    yield Picture("regions/regions.jpg", title, (proposed, values))


def time_family(
    network: Detector, images: Tensor, boxes: Tensor, runtime: Runtime
) -> dict[str, float]:
    """Return seconds that ways to find objects take for a photograph, by name.

    R-CNN and Fast R-CNN take the features of `network` at as many regions as a proposal method
    would give them; the time of proposing is not counted. Faster R-CNN is torchvision's, untrained.

    Args:
        images: (1, 3, H, W).
        boxes: (k, 4), repeated up to TIMED_REGIONS.
    """
    repeats = -(-TIMED_REGIONS // len(boxes))
    regions = [boxes.float().repeat(repeats, 1)[:TIMED_REGIONS]]

    def r_cnn() -> None:
        # Every crop through the whole network. roi_align cuts and resizes them at once.
        crops = roi_align(images, regions, WARPED, aligned=True)
        for some in crops.split(25):
            network.features(some)

    def fast_r_cnn() -> None:
        features, stride = network.features(images)
        roi_align(features.float(), regions, BINS, 1 / stride, 2, aligned=True)

    tiny = folded(TinySSD(1)).to(runtime.device, memory_format=torch.channels_last)
    faster = build(NETWORKS, FASTER, {"num_classes": 1}).to(runtime.device).eval()
    ways: dict[str, Callable[[], Any]] = {
        f"R-CNN ({TIMED_REGIONS:,} regions, each through the network)": r_cnn,
        f"Fast R-CNN (one pass, RoIAlign of {TIMED_REGIONS:,} regions)": fast_r_cnn,
        "Faster R-CNN (torchvision's mobilenet_v3_large_320_fpn)": lambda: faster.detect(images),
        "TinySSD": lambda: tiny.detect(images),
    }
    if not isinstance(network, TinySSD):
        ways[f"this network, {type(network).__name__}"] = lambda: network.detect(images)
    return {name: seconds_of(way, runtime) for name, way in ways.items()}


def seconds_of(way: Callable[[], Any], runtime: Runtime) -> float:
    """Return the seconds of the faster of two calls, after one that warms up."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        way()
        runtime.wait_for_device()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def view_cam(flags: ViewFlags, trained: Trained) -> Iterator[Picture]:
    """Where a layer sees what speaks for one detection: the likeliest, or that of `--target`.

    The score is the logarithm of the detection's: a share near 1 has hardly a slope.
    """
    classes, network, rows = trained.classes, folded(trained.network).requires_grad_(False), []
    wanted = [class_index(text, classes) for text in flags.target or []]
    layers = spatial_layers(network)
    for picture, _, name in chosen_pictures(flags, trained):
        images = as_input(picture).to(trained.runtime.device)
        labels = network.detect(images)[0]["labels"].tolist()
        places = [k for k, label in enumerate(labels) if not wanted or label in wanted]
        if not places:
            rows.append([Tile(picture, shorten(name), "nothing found")])
            continue

        def score_of(images: Tensor, place: int = places[0]) -> Tensor:
            return network.detect(images)[0]["scores"][place].log()

        score, (height, width) = partial(score_of, images), images.shape[2:]
        layer = cam.choose_layer(layers, flags.layer_idx, score)
        maps = [cam.activation_maps(layers[layer], score, method)
                for method in (cam.layer_cam, cam.grad_cam)]  # fmt: skip
        maps.append(saliency_of(score_of, images))
        found = {key: own[places[0]] for key, own in network.detect(images)[0].items()}
        box = found["boxes"].tolist()
        text = f"{shorten(classes[labels[places[0]]])} {found['scores']:.0%}"
        tiles = [Tile(picture, shorten(name), marks=(frame(box, "magenta", text),))]
        kinds = (f"LayerCAM, {layer}", f"Grad-CAM, {layer}", "saliency")
        for kind, own in zip(kinds, maps, strict=True):
            size = images.shape[2:] if kind == "saliency" else network.fill(images).shape[2:]
            heat = cam.enlarged(own, size)[0, :height, :width]
            note = f"{share_inside(heat, box):.0%} inside the box"
            shown = cam.shown_over(picture / 255, heat)
            tiles.append(Tile(shown, kind, note, (frame(box, "cyan"),)))
        rows.append(tiles)
    title = "Where a layer sees what speaks for one detection"
    yield Picture("cam/cam.jpg", title, (Grid(rows, side=2.6),))


def share_inside(heat: Tensor, box: Sequence[float]) -> float:
    """Return the share of a map's (H, W) mass within a box, in its pixels."""
    left, top, right, bottom = (round(edge) for edge in box)
    return float(heat[top:bottom, left:right].sum() / heat.sum().clamp(min=1e-12))
