"""Boxes and anchors, by the names of the book: Dive into Deep Learning, chapter 14.3 to 14.7.

Boxes are (..., 4): left, top, right, bottom. Where nothing else is said, any unit will do, pixels
or shares of the picture, as long as all boxes of a call have the same.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import box_convert, box_iou, nms

XY_SCALE, WH_SCALE = 10.0, 5.0  # one over the deviations that SSD divides offsets by: 0.1, 0.2
NO_BOX = -1  # instead of a box's index, and of a class


def multibox_prior(data: Tensor, sizes: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Return the anchors laid around the middle of every pixel of a picture or a feature map.

    A size s and a ratio r make an anchor s * sqrt(r) wide and s / sqrt(r) tall, both in shares of
    the picture's height. Of all pairs there are those with the first size or the first ratio: all
    sizes with the first ratio, then the first size with all further ratios.

    Args:
        data: (..., H, W), of which the shape alone counts.
        sizes, ratios: above 0.

    Returns:
        (1, H * W * (sizes + ratios - 1), 4), in shares of the picture's width and height; the
        anchors of a pixel stand together, pixels in row-major order.
    """
    height, width = data.shape[-2:]
    like = {"dtype": torch.float32, "device": data.device}
    y, x = torch.meshgrid(
        (torch.arange(height, **like) + 0.5) / height,
        (torch.arange(width, **like) + 0.5) / width,
        indexing="ij",
    )
    pairs = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    size, ratio = torch.tensor(pairs, **like).unbind(1)
    half_width = size * ratio.sqrt() * height / width / 2
    half_height = size / ratio.sqrt() / 2
    corners = torch.stack((-half_width, -half_height, half_width, half_height), 1)  # (A, 4)
    centres = torch.stack((x, y, x, y), 2).view(-1, 1, 4)  # (H * W, 1, 4)
    return (centres + corners).view(1, -1, 4)


def offset_boxes(anchors: Tensor, assigned_bb: Tensor, eps: float = 1e-6) -> Tensor:
    """Return how boxes differ from anchors, as a network is to predict it.

        10 (x_b - x_a) / w_a,  10 (y_b - y_a) / h_a,  5 ln(w_b / w_a),  5 ln(h_b / h_a)

    with x, y of the middles.

    Args:
        anchors, assigned_bb: (A, 4), the box that each anchor is to become.
        eps: added to the quotients of sides, so that a box without area has an offset as well.

    Returns:
        (A, 4).
    """
    anchors = box_convert(anchors, "xyxy", "cxcywh")
    boxes = box_convert(assigned_bb, "xyxy", "cxcywh")
    offset_xy = XY_SCALE * (boxes[:, :2] - anchors[:, :2]) / anchors[:, 2:]
    offset_wh = WH_SCALE * torch.log(eps + boxes[:, 2:] / anchors[:, 2:])
    return torch.cat((offset_xy, offset_wh), 1)


def offset_inverse(anchors: Tensor, offset_preds: Tensor) -> Tensor:
    """Return the boxes that offsets (A, 4) make of anchors (A, 4): `offset_boxes` undone."""
    anchors = box_convert(anchors, "xyxy", "cxcywh")
    xy = offset_preds[:, :2] * anchors[:, 2:] / XY_SCALE + anchors[:, :2]
    wh = torch.exp(offset_preds[:, 2:] / WH_SCALE) * anchors[:, 2:]
    return box_convert(torch.cat((xy, wh), 1), "cxcywh", "xyxy")


def assign_anchor_to_bbox(
    ground_truth: Tensor,
    anchors: Tensor,
    device: str | torch.device | None = None,
    iou_threshold: float = 0.5,
) -> Tensor:
    """Return which true box each anchor is responsible for.

    An anchor takes the box that it overlaps most, if its IoU reaches the threshold. Before that,
    every box gets an anchor of its own: of all pairs the one of the highest IoU, then of the
    anchors and boxes that are left the next, and so on.

    Args:
        ground_truth: (B, 4); B may be 0.
        anchors: (A, 4).
        device: of the result; that of the anchors if None.

    Returns:
        int64 (A,), the index of a box; -1 for none.
    """
    device = anchors.device if device is None else device
    assigned = torch.full((len(anchors),), NO_BOX, device=device)
    if not len(ground_truth):
        return assigned
    overlaps = box_iou(anchors, ground_truth).to(device)  # (A, B)
    most, boxes = overlaps.max(1)
    assigned = torch.where(most >= iou_threshold, boxes, assigned)
    for _ in range(min(overlaps.shape)):
        anchor, box = divmod(int(overlaps.argmax()), len(ground_truth))
        assigned[anchor] = box
        overlaps[anchor] = overlaps[:, box] = NO_BOX  # below any IoU: both are taken
    return assigned


def multibox_target(anchors: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a network is to predict of each anchor.

    Args:
        anchors: (1, A, 4).
        labels: (N, B, 5), of each true box of each picture its class, from 0, and its edges.
            Pictures of fewer boxes are filled up with rows of class -1.

    Returns:
        Offsets (N, 4 * A), 0 where there is no box; their mask, (N, 4 * A), 1 where there is one;
        and classes, int64 (N, A), 0 for background and one more than the box's class elsewhere.
    """
    anchors = anchors.squeeze(0)
    offsets, masks, classes = [], [], []
    for label in labels:
        label = label[label[:, 0] >= 0]
        box = assign_anchor_to_bbox(label[:, 1:], anchors)
        has_box = box >= 0
        offset = torch.zeros_like(anchors)
        offset[has_box] = offset_boxes(anchors[has_box], label[box[has_box], 1:])
        kind = torch.zeros_like(box)
        kind[has_box] = label[box[has_box], 0].long() + 1
        offsets.append(offset.flatten())
        masks.append(has_box.to(anchors.dtype).repeat_interleave(4))
        classes.append(kind)
    return torch.stack(offsets), torch.stack(masks), torch.stack(classes)


def multibox_detection(
    cls_probs: Tensor,
    offset_preds: Tensor,
    anchors: Tensor,
    nms_threshold: float = 0.5,
    pos_threshold: float = 0.009999999,
) -> Tensor:
    """Return what is found where, from a network's predictions.

    Args:
        cls_probs: (N, C + 1, A), of each anchor the probability of background and of C classes.
        offset_preds: (N, 4 * A).
        anchors: (1, A, 4).
        nms_threshold: IoU above which the less probable one of two boxes goes.
        pos_threshold: probability below which a box is background.

    Returns:
        (N, A, 6): class, confidence and box; by falling confidence those that `nms` keeps, then
        the rest. The class is -1 where there is background or `nms` has taken a box away; the
        confidence of background is one minus the probability of its likeliest class.
    """
    detections = []
    for probabilities, offsets in zip(cls_probs, offset_preds, strict=True):
        confidence, kind = probabilities[1:].max(0)  # (A,)
        boxes = offset_inverse(anchors.squeeze(0), offsets.view(-1, 4))
        kept = nms(boxes, confidence, nms_threshold)
        gone = torch.ones_like(kind, dtype=torch.bool)
        gone[kept] = False
        is_background = confidence < pos_threshold
        kind = kind.masked_fill(gone | is_background, NO_BOX)
        confidence = torch.where(is_background, 1 - confidence, confidence)
        rows = torch.cat((kind[:, None], confidence[:, None], boxes), 1)
        detections.append(rows[torch.cat((kept, gone.nonzero().flatten()))])
    return torch.stack(detections)
