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
from tasks.detection.ssd import (
    TinySSD,
    base_net,
    bbox_predictor,
    cls_predictor,
    concat_preds,
    down_sample_blk,
    flatten_pred,
)

__all__ = [
    "TinySSD",
    "assign_anchor_to_bbox",
    "base_net",
    "bbox_predictor",
    "box_iou",
    "cls_predictor",
    "concat_preds",
    "down_sample_blk",
    "flatten_pred",
    "multibox_detection",
    "multibox_prior",
    "multibox_target",
    "nms",
    "offset_boxes",
    "offset_inverse",
]
