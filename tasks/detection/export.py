"""A detector as export.py writes it: pictures of any size to boxes after suppression.

What `detect` finds picture by picture, here for all at once, as arrays of one size: MOST_FOUND a
picture, the most certain first, with a score of 0 where nothing more is found. The number of
pictures is `shape[0]` here: `len` would be a number of Python's, and fixed in the graph.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lab.console import LabError
from tasks.annotated import seen_size
from tasks.detection.boxes import nms, offset_inverse
from tasks.detection.centernet import CenterNet, certainty, peaks
from tasks.detection.detector import LEAST_SCORE, MOST_FOUND, SAME, SHOWN_SCORE, Detector
from tasks.detection.networks import folded
from tasks.detection.ssd import CANDIDATES, TinySSD
from tasks.exporting import PICTURES, Exported, as_images
from tasks.showing import Shown
from tasks.trained import Trained


class PictureDetector(nn.Module):
    """Finds objects in pictures, uint8 (N, H, W, 3).

    Shape: boxes (N, MOST_FOUND, 4), left, top, right, bottom in pixels; scores (N, MOST_FOUND),
    falling, 0 where nothing more is found; labels, int64, likewise.
    """

    def __init__(self, network: Detector):
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        images = as_images(pictures)
        height, width = images.shape[2:]
        boxes, scores, labels = CANDIDATES_OF[type(self.network)](self.network, images)
        kept = suppress(boxes, scores) & (scores >= LEAST_SCORE)
        x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
        kept &= (x[..., 1] - x[..., 0] >= 1) & (y[..., 1] - y[..., 0] >= 1)
        scores, order = (scores * kept).topk(MOST_FOUND)
        boxes = torch.stack((x[..., 0], y[..., 0], x[..., 1], y[..., 1]), 2)
        there = scores > 0
        return chosen(boxes, order) * there.unsqueeze(2), scores, labels.gather(1, order) * there


def chosen(rows: Tensor, places: Tensor) -> Tensor:
    """Return rows (N, A, C) at places (N, K): (N, K, C)."""
    # Not take_along_dim, whose rules for shapes would fix the number of pictures in a graph.
    return rows.gather(1, places.unsqueeze(2).expand(-1, -1, rows.shape[2]))


def suppress(boxes: Tensor, scores: Tensor) -> Tensor:
    """Return which boxes (N, K, 4) of scores (N, K) non-maximum suppression keeps, bool (N, K)."""
    # All pictures at once: those of each are moved to where no other's are.
    reach = boxes.max() - boxes.min() + 1
    moved = boxes + reach * torch.arange(boxes.shape[0]).view(-1, 1, 1)
    kept = nms(moved.flatten(0, 1), scores.flatten(), SAME)
    return torch.zeros_like(scores).flatten().index_fill(0, kept, 1).view_as(scores) > 0


def center_net_candidates(network: CenterNet, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (N, K, 4), scores and labels (N, K), before suppression."""
    heat, distances, features = network(network.fill(images))
    boxes, scores = peaks(heat, distances, MOST_FOUND)
    image = torch.arange(boxes.shape[0]).view(-1, 1, 1).expand(-1, MOST_FOUND, 1)
    rows = torch.cat((image.to(boxes), boxes), 2).flatten(0, 1)  # as roi_align takes them
    shares = network.read(features, rows).softmax(1)
    scores, labels = certainty(scores.flatten(), shares)
    return boxes, scores.view(-1, MOST_FOUND), labels.view(-1, MOST_FOUND)


def tiny_ssd_candidates(network: TinySSD, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes (N, K, 4), scores and labels (N, K), before suppression."""
    filled = network.fill(images)
    anchors, classes, offsets = network(filled)
    offsets, anchors = offsets.unflatten(1, (-1, 4)), anchors.expand(images.shape[0], -1, -1)
    scores, labels = classes.softmax(2)[..., 1:].max(2)  # (N, A)
    # Of a small picture's few anchors, all: the rest of the candidates are empty.
    scores, best = F.pad(scores, (0, CANDIDATES)).topk(CANDIDATES)
    offsets, anchors = (F.pad(own, (0, 0, 0, CANDIDATES)) for own in (offsets, anchors))
    boxes = offset_inverse(chosen(anchors, best).flatten(0, 1), chosen(offsets, best).flatten(0, 1))
    x, y = boxes[:, 0::2] * filled.shape[3], boxes[:, 1::2] * filled.shape[2]
    boxes = torch.stack((x[:, 0], y[:, 0], x[:, 1], y[:, 1]), 1).view(-1, CANDIDATES, 4)
    return boxes, scores, F.pad(labels, (0, CANDIDATES)).gather(1, best)


CANDIDATES_OF = {CenterNet: center_net_candidates, TinySSD: tiny_ssd_candidates}


def exported(trained: Trained) -> list[Exported]:
    network = folded(trained.network)
    if type(network) not in CANDIDATES_OF:
        raise LabError(
            f"{trained.state['network']} is torchvision's, which torch.export does not take; "
            "of ours there are tiny_ssd and center_net"
        )
    outputs = ("boxes", "scores", "labels")
    return [Exported("detector", PictureDetector(network), PICTURES, outputs, in_order=False)]


def shown(trained: Trained) -> Shown:
    facts = {"classes": trained.classes, "least": LEAST_SCORE, "threshold": SHOWN_SCORE}
    return Shown(exported(trained), facts=facts | {"longest": seen_size(trained)})
