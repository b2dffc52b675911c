"""The quality of a matched query: its overlap with its target, and Align-DETR's t."""

import torch
from torch import Tensor

from align_detr.layers.boxes import box_iou, cxcywh_to_xyxy, generalized_box_iou
from align_detr.structures import Match, Predictions, Targets

QUALITY_FLOOR = 0.01  # as in the released code; the paper does not mention it


@torch.no_grad()
def matched_iou(preds: Predictions, targets: Targets, match: Match, eps: float = 1e-6) -> Tensor:
    """Return the IoU of each matched query's box with its target's, (M,) float32 without gradient; `eps` as in
    `layers.boxes.box_iou`.
    """
    boxes, target_boxes = match.at(preds.boxes).float(), match.of(targets.boxes).float()
    return box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes), eps)[0]


@torch.no_grad()
def matched_giou(preds: Predictions, targets: Targets, match: Match, eps: float = 1e-6) -> Tensor:
    """Return the generalised IoU of each matched query's box with its target's, (M,) float32 without gradient; `eps` as
    in `layers.boxes.box_iou`.
    """
    boxes, target_boxes = match.at(preds.boxes).float(), match.of(targets.boxes).float()
    return generalized_box_iou(cxcywh_to_xyxy(boxes), cxcywh_to_xyxy(target_boxes), eps)


def matched_logits(preds: Predictions, targets: Targets, match: Match) -> Tensor:
    """Return each matched query's logit of its target's class, (M,)."""
    return preds.logits[match.row, match.image, match.query, match.of(targets.labels)]


@torch.no_grad()
def alignment_quality(s: Tensor, u: Tensor, alpha: float = 0.25) -> Tensor:
    """Return t = max(s^alpha u^(1 - alpha), 0.01) of probability s and IoU u, any shape, float32 without gradient
    (Align-DETR, equation 4).
    """
    return (s.float() ** alpha * u.float() ** (1 - alpha)).clamp(min=QUALITY_FLOOR)
