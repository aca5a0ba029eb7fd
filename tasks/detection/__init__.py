"""Detection: what is where in a picture."""

from tasks.detection.boxes import (
    assign_anchor_to_bbox,
    box_iou,
    multibox_detection,
    multibox_prior,
    multibox_target,
    nms,
    offset_boxes,
    offset_inverse,
)

__all__ = [
    "assign_anchor_to_bbox",
    "box_iou",
    "multibox_detection",
    "multibox_prior",
    "multibox_target",
    "nms",
    "offset_boxes",
    "offset_inverse",
]
