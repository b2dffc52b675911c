"""Losses on the boxes of matched queries."""

from torch import Tensor

from align_detr.checks import check_number
from align_detr.layers.boxes import cxcywh_to_xyxy, generalized_box_iou
from align_detr.modeling.losses.base import SetLoss, sum_by_row, weighted
from align_detr.structures import Match, Predictions, Targets


class L1Loss(SetLoss):
    """Sum of the absolute differences of the four normalised cxcywh numbers over matches, divided by the number of
    targets (DETR, equation 9).
    """

    def __init__(self, *, name: str = "bbox", weight: float = 5.0) -> None:
        super().__init__(name=name, weight=weight)

    def elementwise(self, boxes: Tensor, target_boxes: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of plain tensors: boxes and target_boxes (..., 4), weight (...) -> (...) float32."""
        return weighted((boxes.float() - target_boxes.float()).abs().sum(-1), weight)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row, (R,)."""
        difference = self.elementwise(match.at(preds.boxes), match.of(targets.boxes))
        return sum_by_row(difference, match, preds.boxes.shape[0]) / num_boxes


class GIoULoss(SetLoss):
    """Sum of 1 - generalised IoU over matches, divided by the number of targets (DETR, equation 10); `eps` as in
    `layers.boxes.box_iou`.
    """

    def __init__(self, *, name: str = "giou", weight: float = 2.0, eps: float = 0.0) -> None:
        super().__init__(name=name, weight=weight)
        self.eps = check_number(eps, f"model.criterion.losses: eps of {type(self).__name__}", least=0)

    def elementwise(self, boxes: Tensor, target_boxes: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of plain tensors: boxes and target_boxes (..., 4) cxcywh, weight (...) -> (...) float32."""
        # Corners need float32, too: the areas are made of their differences.
        boxes, target_boxes = cxcywh_to_xyxy(boxes.float()), cxcywh_to_xyxy(target_boxes.float())
        return weighted(1 - generalized_box_iou(boxes, target_boxes, self.eps), weight)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row, (R,)."""
        distance = self.elementwise(match.at(preds.boxes), match.of(targets.boxes))
        return sum_by_row(distance, match, preds.boxes.shape[0]) / num_boxes
