"""TinySSD, from its parts: Dive into Deep Learning, chapter 14.7, after Liu et al. (2016).

Five feature maps, each coarser than the one before it; on each, a 3x3 convolution says of every
anchor which class it shows, another one how the object's box differs from it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.detection.boxes import multibox_detection, multibox_prior, multibox_target
from tasks.detection.detector import Detections, Detector, Target, in_any_box, split_targets

HEIGHT = 256  # pixels, of the pictures that sizes are shares of
STRIDES = (8, 16, 32, 64, HEIGHT)  # pixels from one position of each map to the next
RATIOS = (1.0, 2.0, 0.5)
# Of the anchors on each map. The book's suit an object that fills a quarter of the picture or more.
BOOK_SIZES = ((0.2, 0.272), (0.37, 0.447), (0.54, 0.619), (0.71, 0.79), (0.88, 0.961))
# Signs are smaller: 15 and 21 pixels at a stride of 8, and twice as much from map to map.
SIGN_SIZES = ((0.06, 0.085), (0.12, 0.17), (0.24, 0.34), (0.48, 0.62), (0.78, 0.92))
NEGATIVES = 3  # anchors of background that count, for each one with an object
FEWEST_NEGATIVES = 8  # in a picture, of few objects or none
CANDIDATES = 400  # boxes an image that enter non-maximum suppression


def cls_predictor(num_inputs: int, num_anchors: int, num_classes: int) -> nn.Conv2d:
    """Return the convolution that scores classes: (N, num_inputs, H, W) to (N, A * (C + 1), H, W).

    C classes and, as number 0, background.
    """
    return nn.Conv2d(num_inputs, num_anchors * (num_classes + 1), kernel_size=3, padding=1)


def bbox_predictor(num_inputs: int, num_anchors: int) -> nn.Conv2d:
    """Return the convolution that moves anchors: (N, num_inputs, H, W) to (N, A * 4, H, W)."""
    return nn.Conv2d(num_inputs, num_anchors * 4, kernel_size=3, padding=1)


def flatten_pred(pred: Tensor) -> Tensor:
    """Lay a prediction (N, A * K, H, W) out as (N, H * W * A * K): anchors in their order."""
    return pred.permute(0, 2, 3, 1).flatten(1)


def concat_preds(preds: Sequence[Tensor]) -> Tensor:
    """Join the predictions of several maps, (N, A * K, H, W) each, to (N, sum of H * W * A * K)."""
    return torch.cat([flatten_pred(pred) for pred in preds], 1)


def down_sample_blk(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return two convolutions and a pooling that halves height and width.

    The book pools what the last ReLU returns. The other way round is the same, of a fourth as much.

    Shape: (N, in_channels, H, W) to (N, out_channels, H/2, W/2).
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),
    )


def base_net() -> nn.Sequential:
    """Return the first three blocks: (N, 3, H, W) to (N, 64, H/8, W/8)."""
    return nn.Sequential(down_sample_blk(3, 16), down_sample_blk(16, 32), down_sample_blk(32, 64))


@dataclass(frozen=True)
class TinySSDConfig:
    """All that is needed to build a `TinySSD`; saved in its checkpoints as `configs`."""

    num_classes: int
    sizes: tuple[tuple[float, ...], ...] = BOOK_SIZES


class TinySSD(Detector):
    """The book's detector, which searches pictures of any size.

    Anchors have their size in pixels whatever the picture's: shares of 256. So what was trained on
    crops of 256x256 searches a whole photograph in one pass. There, where the book pools the last
    map to a single position, every window of 4x4 positions, 256x256 pixels, is pooled to one: in a
    picture of 256x256 that is the same.

    Args:
        sizes: of the anchors of each of the five maps, two a map.

    Shape: images (N, 3, H, W) to anchors (1, A, 4), in shares of the picture, classes (N, A, C + 1)
    and offsets (N, A * 4); with targets to losses.
    """

    stride = 32
    outputs = tuple(f"cls_{index}" for index in range(len(STRIDES)))

    def __init__(self, num_classes: int, sizes: Sequence[Sequence[float]] = BOOK_SIZES):
        super().__init__()
        self.config = TinySSDConfig(num_classes, tuple(map(tuple, sizes)))
        self.num_classes = num_classes
        blocks = [
            base_net(),  # (N, 64, H/8, W/8)
            down_sample_blk(64, 128),  # (N, 128, H/16, W/16)
            down_sample_blk(128, 128),
            down_sample_blk(128, 128),  # (N, 128, H/64, W/64)
            nn.MaxPool2d(4, ceil_mode=True),  # (N, 128, H/256, W/256)
        ]
        num_anchors = len(sizes[0]) + len(RATIOS) - 1
        for index, (block, channels) in enumerate(zip(blocks, (64, *[128] * 4), strict=True)):
            self.add_module(f"blk_{index}", block)
            self.add_module(f"cls_{index}", cls_predictor(channels, num_anchors, num_classes))
            self.add_module(f"bbox_{index}", bbox_predictor(channels, num_anchors))

    def forward(
        self, images: Tensor, targets: Sequence[Target] | None = None
    ) -> tuple[Tensor, Tensor, Tensor] | dict[str, Tensor]:
        maps, class_maps, offset_maps = self.maps(images), [], []
        for index, features in enumerate(maps):
            class_maps.append(self.get_submodule(f"cls_{index}")(features))
            offset_maps.append(self.get_submodule(f"bbox_{index}")(features))
        anchors = torch.cat(self.anchors(maps, *images.shape[-2:]), 1)
        classes = concat_preds(class_maps).view(images.shape[0], anchors.shape[1], -1)
        offsets = concat_preds(offset_maps)
        if targets is None:
            return anchors, classes, offsets
        return multibox_loss(anchors, classes, offsets, targets, *images.shape[-2:])

    def maps(self, images: Tensor) -> list[Tensor]:
        """Return the five feature maps."""
        maps = [images]
        for index in range(len(self.config.sizes)):
            maps.append(self.get_submodule(f"blk_{index}")(maps[-1]))
        return maps[1:]

    def anchors(self, maps: Sequence[Tensor], height: int, width: int) -> list[Tensor]:
        """Return the anchors of each map, (1, A, 4), in shares of a picture of (height, width).

        A map need not cover it: of what is left over after the last whole stride, it has none.
        """
        anchors = []
        for features, stride, sizes in zip(maps, STRIDES, self.config.sizes, strict=True):
            covered = [stride * side for side in features.shape[-2:]]  # pixels
            own = multibox_prior(features, [size * HEIGHT / covered[0] for size in sizes], RATIOS)
            scale = (covered[1] / width, covered[0] / height)
            anchors.append(own * own.new_tensor(scale * 2))
        return anchors

    def _features(self, images: Tensor) -> Tensor:
        return self.blk_0(images)

    def _detect(self, images: Tensor, threshold: float) -> list[Detections]:
        anchors, classes, offsets = self(images)
        probabilities = classes.float().softmax(2)
        height, width = images.shape[-2:]
        detections = []
        for shares, offset in zip(probabilities, offsets.float(), strict=True):
            confidence = shares[:, 1:].amax(1)
            best = confidence.topk(min(CANDIDATES, len(confidence))).indices
            best = best[confidence[best] >= threshold]
            rows = multibox_detection(
                shares[best].T[None], offset.view(-1, 4)[best].view(1, -1), anchors[:, best]
            )[0]
            labels, scores, boxes = rows[rows[:, 0] >= 0].split((1, 1, 4), 1)
            boxes = boxes * rows.new_tensor([width, height] * 2)
            own = {"boxes": boxes, "scores": scores[:, 0], "labels": labels[:, 0].long()}
            detections.append(own)
        return detections


def multibox_labels(targets: Sequence[Target], height: int, width: int) -> Tensor:
    """Return the boxes of targets as `multibox_target` takes them, (N, B, 5).

    Args:
        height, width: of the images in pixels; the boxes become shares of them.
    """
    most = max(len(target["labels"]) for target in targets)
    rows = torch.full((len(targets), most, 5), -1.0, device=targets[0]["boxes"].device)
    for row, target in zip(rows, targets, strict=True):
        count = len(target["labels"])
        row[:count, 0] = target["labels"]
        row[:count, 1:] = target["boxes"] / row.new_tensor([width, height, width, height])
    return rows


def multibox_loss(
    anchors: Tensor, classes: Tensor, offsets: Tensor, targets: Sequence[Target], height: int,
    width: int,
) -> dict[str, Tensor]:  # fmt: skip
    """Return SSD's losses (its section 2.2), means over the images.

    Nearly all anchors are background, and most of them are easy: of those only the ones count that
    are worst predicted, three for each anchor with an object. What is `ignored` is no background.

    Args:
        anchors: (1, A, 4), in shares of an image of (height, width).
        classes, offsets: predictions, (N, A, C + 1) and (N, A * 4).

    Returns:
        `class_loss`, cross-entropy, and `box_loss`, smooth L1, both a sum an image over its number
        of anchors with an object.
    """
    with torch.no_grad():
        sought, ignored = split_targets(targets)
        labels = multibox_labels(sought, height, width)
        offset_truth, mask, class_truth = multibox_target(anchors, labels)
        middles = (anchors[0, :, :2] + anchors[0, :, 2:]) / 2 * anchors.new_tensor([width, height])
        unclear = torch.stack([in_any_box(middles, boxes) for boxes in ignored])  # (N, A)
        has_object = class_truth > 0  # (N, A)
        count = has_object.sum(1).clamp(min=1)  # (N,)
    each = F.cross_entropy(classes.float().mT, class_truth, reduction="none")  # (N, A)
    with torch.no_grad():
        negative = each.masked_fill(has_object | unclear, -1.0)
        order = negative.argsort(1, descending=True).argsort(1)  # place of each, the worst is 0
        most = (NEGATIVES * has_object.sum(1)).clamp(min=FEWEST_NEGATIVES)
        counts = has_object | ((order < most[:, None]) & (negative >= 0))
    class_loss = (each * counts).sum(1) / count
    distance = F.smooth_l1_loss(offsets.float() * mask, offset_truth, reduction="none")
    box_loss = distance.sum(1) / count
    return {"class_loss": class_loss.mean(), "box_loss": box_loss.mean()}
