"""Terms of the matching cost, for all rows and images of a prediction set at once."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_giou
from align_detr.structures import Predictions, Targets


class Cost(nn.Module):
    """One term of the matching cost: (preds, targets) -> (R, B, Q, T), small where a query suits a target; `weight`
    multiplies it.

    The terms here compute (R, B, T, Q) and return it transposed: the solver reads the queries of a target one after
    another.
    """

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        raise NotImplementedError


class SoftmaxCost(Cost):
    """Minus the softmax probability of the target's class (DETR, equation 1)."""

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T) in [-1, 0]."""
        return -_of_target_class(preds.logits.softmax(-1), targets).transpose(-1, -2)


class FocalCost(Cost):
    """Focal loss of the target's class as a positive, less that as a negative (Deformable-DETR, section A.3), on
    probabilities p = sigmoid(logit):

    alpha (1 - p)^gamma (-log(p + 1e-8)) - (1 - alpha) p^gamma (-log(1 - p + 1e-8)).
    """

    def __init__(self, *, weight: float, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(weight=weight)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T)."""
        return _through_classes(lambda x: self._focal(x.sigmoid()), preds, targets).transpose(-1, -2)

    def _focal(self, p: Tensor) -> Tensor:
        positive = self.alpha * (1 - p) ** self.gamma * -(p + 1e-8).log()
        negative = (1 - self.alpha) * p**self.gamma * -(1 - p + 1e-8).log()
        return positive - negative


class PositionModulatedCost(FocalCost):
    """`FocalCost` of p v^beta in the place of p, v = (GIoU + 1) / 2: a confident query far from the target is no longer
    cheap (Stable-DINO, Liu et al. 2023, the position-modulated cost; beta 0.5 there).
    """

    def __init__(
        self, *, weight: float, alpha: float = 0.25, gamma: float = 2.0, beta: float = 0.5, eps: float = 1e-6
    ) -> None:
        super().__init__(weight=weight, alpha=alpha, gamma=gamma)
        self.beta = beta
        self.eps = eps

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T)."""
        giou = pairwise_giou(cxcywh_to_xyxy(targets.boxes), cxcywh_to_xyxy(preds.boxes), self.eps)
        overlap = ((giou + 1) / 2).clamp(min=0)  # rounding may leave a GIoU just below -1
        p = _through_classes(torch.sigmoid, preds, targets)
        return self._focal(p * overlap**self.beta).transpose(-1, -2)


class L1Cost(Cost):
    """Sum of the absolute differences of the four normalised cxcywh numbers (DETR, equation 9)."""

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T)."""
        boxes = targets.boxes.expand(preds.boxes.shape[0], -1, -1, -1)
        return torch.cdist(boxes, preds.boxes, p=1.0).transpose(-1, -2)


class GIoUCost(Cost):
    """Minus the generalised IoU (DETR, equation 10); `eps` as in `align_detr.layers.boxes.box_iou`."""

    def __init__(self, *, weight: float, eps: float = 0.0) -> None:
        super().__init__(weight=weight)
        self.eps = eps

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T) in [-1, 1]."""
        giou = pairwise_giou(cxcywh_to_xyxy(targets.boxes), cxcywh_to_xyxy(preds.boxes), self.eps)
        return -giou.transpose(-1, -2)


def _through_classes(function: Callable[[Tensor], Tensor], preds: Predictions, targets: Targets) -> Tensor:
    """`function` of the logits of each target's class: (R, B, T, Q), computed on the fewer of classes and targets."""
    if targets.labels.shape[1] < preds.logits.shape[-1]:
        return function(_of_target_class(preds.logits, targets))
    return _of_target_class(function(preds.logits), targets)


def _of_target_class(values: Tensor, targets: Targets) -> Tensor:
    """values (R, B, Q, K) -> (R, B, T, Q): each target's class."""
    rows, _, queries, _ = values.shape
    index = targets.labels[None, :, :, None].expand(rows, -1, -1, queries)
    return values.transpose(-1, -2).gather(2, index)
