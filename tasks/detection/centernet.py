"""A detector for small signs: centres on a fine map, and a second look at what they stand for.

TinySSD's finest anchors are 8 pixels apart, and what it tells a sign by has passed the 16 channels
of its first block. Here, after Zhou et al. (2019), Objects as Points:

- A map of stride 4 says of each position whether a sign's centre is there: signs of 15 pixels, and
  two on one pole, stay apart. All signs share that one map, since what a sign is can be learned
  from all of them, and what sets 43 classes apart from each other would take each one's own.
- Each position of it predicts the distances to its box's four edges.
- The features within each likely box, at strides 4 and 8, are then read by a small network that
  tells the classes, and what only looked like a sign, apart (Girshick 2015, Fast R-CNN).

On a CPU a fine map is what costs time: the first convolution goes to stride 4 at once, and the map
of stride 4 is predicted from features of stride 8, four positions from each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import box_iou, generalized_box_iou_loss, roi_align

from tasks.blocks import conv_bn, stage
from tasks.detection.boxes import nms
from tasks.detection.detector import (
    MOST_FOUND,
    SAME,
    Detections,
    Detector,
    Target,
    in_any_box,
    split_targets,
)

Features = tuple[Tensor, Tensor]  # of strides 4 and 8
CELL = 4  # pixels from one position of the map to the next
UNIT = 8  # pixels: distance to an edge that is predicted as 0, in its logarithm
FARTHEST = 5.0  # of those logarithms
RARE = 0.01  # share of the positions that a new network takes for centres
SPREAD = 0.09  # deviation of the bell around a centre, of its box's sides (Liu et al. 2020, TTFNet)
LOOKED_AT = 8  # boxes an image that training looks at again, besides the true ones
OTHER = 0.3  # IoU with a true box below which a box is of nothing
WEIGHTS = (2, 2, 1)  # of the shares in a score, see `certainty`
FINE_BINS, COARSE_BINS = 8, 4  # of the second look, a side, at strides 4 and 8


@dataclass(frozen=True)
class CenterNetConfig:
    """All that is needed to build a `CenterNet`; saved in its checkpoints as `configs`."""

    num_classes: int
    width: int = 32  # channels at stride 4; all others are multiples of it


class CenterNet(Detector):
    """Finds centres at a stride of 4 from features of strides 4 to 32, and looks at them again.

    Shape: images (N, 3, H, W), H and W multiples of 32, to a heat map of logits (N, 1, H/4, W/4),
    distances to edges (N, 4, H/4, W/4) in pixels, and the features of the second look, at strides 4
    and 8; with targets to losses.
    """

    stride = 32
    outputs = ("reader.2",)

    def __init__(self, config: CenterNetConfig):
        super().__init__()
        self.config, width, joint = config, config.width, 2 * config.width
        self.stage4 = nn.Sequential(conv_bn(3, width, 7, 4), conv_bn(width, width))
        self.stage8 = stage(width, 2 * width, 1)
        self.stage16 = stage(2 * width, 4 * width, 1, 1)
        self.stage32 = stage(4 * width, 6 * width, 1)
        self.lateral16 = nn.Conv2d(4 * width, joint, 1)
        self.lateral32 = nn.Conv2d(6 * width, joint, 1)
        self.join16, self.join8 = conv_bn(joint, joint), conv_bn(joint, joint)
        self.head = nn.Sequential(
            conv_bn(joint, joint), nn.Conv2d(joint, 5 * 4, 1), nn.PixelShuffle(2)
        )  # (N, 5, H/4, W/4)
        nn.init.normal_(self.head[1].weight, std=0.01)
        nn.init.zeros_(self.head[1].bias)
        nn.init.constant_(self.head[1].bias[:4], math.log(RARE / (1 - RARE)))
        self.reader = nn.Sequential(
            nn.Linear(width * FINE_BINS**2 + joint * COARSE_BINS**2, 128),
            nn.ReLU(),
            nn.Linear(128, config.num_classes + 1),  # the last one for what is no sign
        )

    def forward(
        self, images: Tensor, targets: Sequence[Target] | None = None
    ) -> tuple[Tensor, Tensor, Features] | dict[str, Tensor]:
        features = self.maps(images)
        heat, logarithms = self.head(features[1]).float().split((1, 4), 1)
        distances = UNIT * logarithms.clamp(max=FARTHEST).exp()
        if targets is None:
            return heat, distances, features
        return self._losses(heat, distances, features, targets)

    def maps(self, images: Tensor) -> Features:
        """Return features of strides 4 and 8; the latter know what those of 16 and 32 see."""
        x4 = self.stage4(images)
        x8 = self.stage8(x4)
        x16 = self.stage16(x8)
        x32 = self.lateral32(self.stage32(x16))
        x16 = self.join16(self.lateral16(x16) + F.interpolate(x32, scale_factor=2))
        return x4, self.join8(x8 + F.interpolate(x16, scale_factor=2))

    def _features(self, images: Tensor) -> Tensor:
        return self.maps(images)[1]

    def read(self, features: Features, boxes: Sequence[Tensor]) -> Tensor:
        """Return the logits of the second look, (B, C + 1), at boxes of each image, B in all."""
        fine, coarse = (values.float() for values in features)  # roi_align for CPUs knows no bf16
        bins = [
            roi_align(fine, boxes, FINE_BINS, 1 / CELL, 2, aligned=True),
            roi_align(coarse, boxes, COARSE_BINS, 1 / (2 * CELL), 2, aligned=True),
        ]
        return self.reader(torch.cat([each.flatten(1) for each in bins], 1)).float()

    def _detect(self, images: Tensor, threshold: float) -> list[Detections]:
        heat, distances, features = self(images)
        # As `certainty`'s first factor alone would allow.
        least = threshold ** (sum(WEIGHTS) / WEIGHTS[0])
        every = zip(*peaks(heat, distances, MOST_FOUND), strict=True)
        likely = [(boxes[scores >= least], scores[scores >= least]) for boxes, scores in every]
        logits = self.read(features, [boxes for boxes, _ in likely])
        shares = logits.softmax(1).split([len(boxes) for boxes, _ in likely])
        detections = []
        for (boxes, scores), share in zip(likely, shares, strict=True):
            scores, labels = certainty(scores, share)
            kept = nms(boxes, scores, SAME)
            kept = kept[scores[kept] >= threshold]
            own = {"boxes": boxes[kept], "scores": scores[kept], "labels": labels[kept]}
            detections.append(own)
        return detections

    def _losses(
        self, heat: Tensor, distances: Tensor, features: Features, targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return `heat_loss` and `box_loss`, a sum an image, and `class_loss`; means over images.

        Looked at again are the true boxes and the likeliest ones, right or wrong.
        """
        centres, no_sign = middles(heat), self.config.num_classes
        sought, ignored = split_targets(targets)
        likeliest, _ = peaks(heat.detach(), distances.detach(), LOOKED_AT)
        images = zip(likeliest, sought, ignored, strict=True)
        to_read = [boxes_to_read(*each, no_sign) for each in images]
        logits = self.read(features, [boxes for boxes, _ in to_read])
        answers = torch.cat([answer for _, answer in to_read])
        each = F.cross_entropy(logits, answers, reduction="none")
        # In each image signs count as much as what is none, whatever there is more of.
        image = torch.cat([torch.full_like(k, n) for n, (_, k) in enumerate(to_read)])
        group = 2 * image + (answers == no_sign)
        class_losses = each / group.bincount()[group]
        return {
            "heat_loss": focal_loss(heat[:, 0], centres, sought, ignored).mean(),
            "box_loss": box_loss(distances, centres, sought) / len(targets),
            "class_loss": class_losses.sum() / len(targets),
        }


def certainty(scores: Tensor, shares: Tensor) -> tuple[Tensor, Tensor]:
    """Return the scores of boxes after both looks, and their labels, (B,) each.

    The geometric mean of three shares: that a centre is there, that it is of anything, and of its
    likeliest class. Which class it is weighs least: two much alike are still one or the other.

    Args:
        scores: of the first look, (B,).
        shares: of the second look, (B, C + 1), the last one of what is nothing.
    """
    likeliest, labels = shares[:, :-1].max(1)
    centre, any_class, this_class = (weight / sum(WEIGHTS) for weight in WEIGHTS)
    anything = (1 - shares[:, -1]).clamp(min=0)
    return scores**centre * anything**any_class * likeliest**this_class, labels


def middles(heat: Tensor) -> Tensor:
    """Return x and y in pixels of the middle of each position of a map, (h, w, 2)."""
    sides = (heat.shape[3], heat.shape[2])
    x, y = ((torch.arange(side, device=heat.device) + 0.5) * CELL for side in sides)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)


def boxes_around(points: Tensor, distances: Tensor) -> Tensor:
    """Return the boxes whose edges are so far left, above, right and below of points.

    Shape: (..., 2), (..., 4) to (..., 4).
    """
    return torch.cat((points - distances[..., :2], points + distances[..., 2:]), -1)


def peaks(heat: Tensor, distances: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Return the likeliest of the positions that are likelier than all around them.

    Args:
        heat, distances: as `CenterNet` returns them.

    Returns:
        Boxes (N, K, 4) and scores in [0, 1], (N, K), falling; K is `most` where there are as many
        positions. Of fewer peaks, the rest have a score of 0.
    """
    scores = heat.sigmoid()
    is_peak = F.max_pool2d(scores, 3, 1, 1) == scores
    scores, places = (scores * is_peak).flatten(1).topk(min(most, heat[0].numel()))
    boxes = boxes_around(middles(heat), distances.permute(0, 2, 3, 1)).flatten(1, 2)
    return boxes.gather(1, places.unsqueeze(2).expand(-1, -1, 4)), scores


def focal_loss(
    heat: Tensor, centres: Tensor, sought: Sequence[Target], ignored: Sequence[Tensor]
) -> Tensor:
    """Return the penalty-reduced focal loss (Law and Deng 2018, equation 1), a sum an image.

    With y a bell around each true centre and p the sigmoid of the logit,

        -(1 - p)^2 ln p  where y = 1,  -(1 - y)^4 p^2 ln(1 - p)  elsewhere

    but nothing at what is to be ignored.

    Args:
        heat: logits, (N, h, w).
        centres: `middles` of them.
        sought, ignored: as `split_targets` returns them.

    Returns:
        (N,).
    """
    bells = torch.stack([bell_map(target["boxes"], centres) for target in sought])
    unclear = torch.stack([in_any_box(centres, boxes) for boxes in ignored])
    at_centre = -((-heat).sigmoid() ** 2) * F.logsigmoid(heat)
    elsewhere = -((1 - bells) ** 4) * heat.sigmoid() ** 2 * F.logsigmoid(-heat)
    elsewhere = elsewhere.masked_fill(unclear, 0)
    return torch.where(bells == 1, at_centre, elsewhere).sum((1, 2))


def bell_map(boxes: Tensor, centres: Tensor) -> Tensor:
    """Return the highest of bells around the middles of boxes (k, 4): (h, w), 1 at the centres."""
    height, width = centres.shape[:2]
    bells = centres.new_zeros(len(boxes) + 1, height, width)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    spread = (SPREAD * (boxes[:, 2:] - boxes[:, :2])).clamp(min=CELL / 2)
    distance = (centres[None] - middle[:, None, None]) / spread[:, None, None]  # (k, h, w, 2)
    bells[1:] = torch.exp(-distance.square().sum(3) / 2).clamp(max=1 - 1e-4)
    x, y = (middle / CELL).long().unbind(1)
    bells[0, y.clamp(0, height - 1), x.clamp(0, width - 1)] = 1
    return bells.amax(0)


def box_loss(distances: Tensor, centres: Tensor, sought: Sequence[Target]) -> Tensor:
    """Return one less the generalised IoU (Rezatofighi et al. 2019), a sum over all true boxes.

    Of a box those positions learn that are within it and next to its centre, up to 3x3.

    Args:
        distances: (N, 4, h, w), in pixels.
        centres: `middles` of them.
    """
    boxes = torch.cat([target["boxes"] for target in sought])[:, None, None]  # (B, 1, 1, 4)
    image = torch.repeat_interleave(
        torch.tensor([len(target["boxes"]) for target in sought], device=boxes.device)
    )
    central = (centres - (boxes[..., :2] + boxes[..., 2:]) / 2).abs().amax(3) < 1.5 * CELL
    within = ((centres > boxes[..., :2]) & (centres < boxes[..., 2:])).all(3)
    box, y, x = (central & within).nonzero().unbind(1)
    predicted = boxes_around(centres[y, x], distances[image[box], :, y, x])
    each = generalized_box_iou_loss(predicted, boxes[box, 0, 0])
    return (each / box.bincount()[box]).sum()


def boxes_to_read(
    boxes: Tensor, sought: Target, ignored: Tensor, no_sign: int
) -> tuple[Tensor, Tensor]:
    """Return the boxes of an image that training looks at again, with what they show.

    Those are the true ones and, of others, those of which it is clear.

    Args:
        boxes: (K, 4).
        sought, ignored: of the image, as `split_targets` returns them.
        no_sign: the answer at what is none.

    Returns:
        Boxes (R, 4) and answers int64 (R,).
    """
    boxes = torch.cat((sought["boxes"], boxes))
    # The empty box, which nothing overlaps, stands for the background.
    truth = torch.cat((sought["boxes"], boxes.new_zeros(1, 4)))
    labels = torch.cat((sought["labels"], sought["labels"].new_tensor([no_sign])))
    overlap, best = box_iou(boxes, truth).max(1)
    answers = torch.where(overlap >= SAME, labels[best], no_sign)
    is_other = (overlap < OTHER) & ~in_any_box((boxes[:, :2] + boxes[:, 2:]) / 2, ignored)
    clear = (overlap >= SAME) | is_other
    return boxes[clear], answers[clear]
