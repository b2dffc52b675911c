"""Losses on the boxes of matched queries."""

from torch import Tensor

from align_detr.layers.boxes import cxcywh_to_xyxy, generalized_box_iou
from align_detr.modeling.losses.base import SetLoss, sum_by_row
from align_detr.structures import Match, Predictions, Targets


class L1Loss(SetLoss):
    """Absolute differences of the four normalised cxcywh numbers, summed over matches, divided by the number of targets
    (DETR, equation 9).
    """

    def __init__(self, *, name: str = "bbox", weight: float = 5.0) -> None:
        super().__init__(name=name, weight=weight)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """(R,)."""
        difference = (match.at(preds.boxes) - match.of(targets.boxes)).abs().sum(-1)
        return sum_by_row(difference, match, preds.boxes.shape[0]) / num_boxes


class GIoULoss(SetLoss):
    """1 - generalised IoU, summed over matches, divided by the number of targets (DETR, equation 10); `eps` as in
    `layers.boxes.box_iou`.
    """

    def __init__(self, *, name: str = "giou", weight: float = 2.0, eps: float = 0.0) -> None:
        super().__init__(name=name, weight=weight)
        self.eps = eps

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """(R,)."""
        giou = generalized_box_iou(
            cxcywh_to_xyxy(match.at(preds.boxes)), cxcywh_to_xyxy(match.of(targets.boxes)), self.eps
        )
        return sum_by_row(1 - giou, match, preds.boxes.shape[0]) / num_boxes
