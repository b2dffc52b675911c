"""Losses on the classes of all queries."""

import torch
import torch.nn.functional as F
from torch import Tensor

from align_detr.modeling.losses.base import SetLoss
from align_detr.structures import Match, Predictions, Targets


class SoftmaxCrossEntropy(SetLoss):
    """Cross-entropy over K classes and "no object", whose terms weigh `background_weight` (DETR, section 3.2 and
    equation 2).

    As in the official code, and unlike the box losses, the value is the mean over all queries by these weights: it does
    not depend on the number of targets.
    """

    softmax = True

    def __init__(self, *, name: str = "class", weight: float = 1.0, background_weight: float = 0.1) -> None:
        super().__init__(name=name, weight=weight)
        self.background_weight = background_weight

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """logits (R, B, Q, K + 1) -> (R,)."""
        logits = preds.logits.float()
        background = logits.shape[-1] - 1
        labels = targets.labels.new_full(logits.shape[:-1], background)
        labels[match.row, match.image, match.query] = match.of(targets.labels)
        weight = logits.new_ones(labels.shape).masked_fill(labels == background, self.background_weight)
        if preds.valid is not None:
            weight = weight * preds.valid
        entropy = F.cross_entropy(logits.flatten(0, 2), labels.flatten(), reduction="none").view_as(labels)
        total = weight.sum((1, 2))
        return (weight * entropy).sum((1, 2)) / torch.where(total > 0, total, 1.0)  # no query gives 0
