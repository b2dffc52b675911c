"""Losses on the classes of all queries."""

import torch
import torch.nn.functional as F
from torch import Tensor

from align_detr.checks import check_number
from align_detr.layers.reduce import mean_over_ranks
from align_detr.modeling.losses.base import SetLoss
from align_detr.structures import Match, Predictions, Targets


class SoftmaxCrossEntropy(SetLoss):
    """Cross-entropy over K classes and "no object", whose terms have the weight `background_weight` (DETR, section 3.2
    and equation 2).

    As in the official code, and unlike the box losses, the value is the weighted mean over all queries: it does not
    depend on the number of targets. The mean is over the queries of all processes (of each alone in the official code),
    and where gradients are accumulated over those of the whole step (of a one-to-one matching, whose weights follow
    from the numbers of objects).
    """

    softmax = True

    def __init__(self, *, name: str = "class", weight: float = 1.0, background_weight: float = 0.1) -> None:
        super().__init__(name=name, weight=weight)
        key = f"model.criterion.losses: background_weight of {type(self).__name__}"
        self.background_weight = check_number(background_weight, key, least=0)

    def elementwise(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of plain tensors: logits (..., K + 1), labels (...) with K for "no object" -> (...) float32,
        each term times the weight of its class, neither summed nor divided: `forward` divides their sum by the sum of
        these weights.
        """
        classes = logits.shape[-1]
        entropy = F.cross_entropy(logits.float().reshape(-1, classes), labels.reshape(-1), reduction="none")
        return self._weight(labels, classes) * entropy.view(labels.shape)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row: logits (R, B, Q, K + 1) -> (R,)."""
        classes = preds.logits.shape[-1]  # "no object" among them
        labels = targets.labels.new_full(preds.logits.shape[:-1], classes - 1)  # (R, B, Q)
        labels[match.row, match.image, match.query] = match.of(targets.labels)
        terms, weight = self.elementwise(preds.logits, labels), self._weight(labels, classes)
        if preds.valid is not None:
            terms, weight = torch.where(preds.valid, terms, 0.0), weight * preds.valid
        total = mean_over_ranks(weight.sum((1, 2)) + self._excess_of_step(targets, preds.logits.shape[2]))
        return terms.sum((1, 2)) / torch.where(total > 0, total, 1.0)  # 0 if there is no query

    def _excess_of_step(self, targets: Targets, queries: int) -> float:
        """Return by how much the sum of weights is greater in the mean of the step's parts than in this part."""
        matched = sum(min(n, queries) for n in targets.counts)
        return (1 - self.background_weight) * (targets.step.mean(matched, lambda n: min(n, queries)) - matched)

    def _weight(self, labels: Tensor, classes: int) -> Tensor:
        return torch.where(labels == classes - 1, self.background_weight, 1.0)
