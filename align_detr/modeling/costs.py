"""Terms of the matching cost, for all rows and images of a prediction set at once."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.structures import Predictions, Targets

CACHED_PAIRS = 2**16  # pairs whose cost a CPU computes at a time, so that the intermediate values stay in its cache


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
        q = 1 - p
        log_p, log_q = (p + 1e-8).log_(), (q + 1e-8).log_()
        negative = (p**self.gamma).mul_(log_q).mul_(1 - self.alpha)
        return negative.sub_((q**self.gamma).mul_(log_p), alpha=self.alpha)


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
        overlap = (_pairwise_giou(targets, preds, self.eps) + 1).div_(2).clamp_(min=0)  # rounding may pass -1
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
        return _pairwise_giou(targets, preds, self.eps).neg_().transpose(-1, -2)


def _pairwise_giou(targets: Targets, preds: Predictions, eps: float) -> Tensor:
    """(R, B, T, Q). As `layers.boxes.pairwise_giou`, but in place and one coordinate at a time: without gradients, that
    is several times faster.
    """
    tx0, ty0, tx1, ty1 = (x[..., :, None] for x in cxcywh_to_xyxy(targets.boxes).unbind(-1))
    px0, py0, px1, py1 = (x[..., None, :].contiguous() for x in cxcywh_to_xyxy(preds.boxes).unbind(-1))
    tw, th, pw, ph = tx1 - tx0, ty1 - ty0, px1 - px0, py1 - py0
    overlap_x = torch.minimum(tx1, px1).sub_(torch.maximum(tx0, px0))
    overlap_y = torch.minimum(ty1, py1).sub_(torch.maximum(ty0, py0))
    hull = (tw + pw).sub_(overlap_x).mul_((th + ph).sub_(overlap_y))
    inter = overlap_x.clamp_(min=0).mul_(overlap_y.clamp_(min=0))
    union = (tw * th + pw * ph).sub_(inter)
    empty = (hull - union).div_(_positive(hull, eps))
    return inter.div_(_positive(union, eps)).sub_(empty)


def _positive(area: Tensor, eps: float) -> Tensor:
    """area + eps, in place; without `eps`, 0 / 0 is to be 0."""
    return area.add_(eps) if eps > 0 else area.clamp_(min=torch.finfo(area.dtype).tiny)


def _through_classes(function: Callable[[Tensor], Tensor], preds: Predictions, targets: Targets) -> Tensor:
    """`function` of the logits of each target's class: (R, B, T, Q), computed on the fewer of classes and targets."""
    if targets.labels.shape[1] < preds.logits.shape[-1]:
        return function(_of_target_class(preds.logits, targets))
    return _of_target_class(function(preds.logits), targets)


def _of_target_class(values: Tensor, targets: Targets) -> Tensor:
    """values (R, B, Q, K) -> (R, B, T, Q): each target's class."""
    rows, images, queries, _ = values.shape
    if images == 1:  # what a CPU computes at a time: nearly twice as fast, as the labels are the same for all queries
        return values.transpose(-1, -2).index_select(2, targets.labels[0])
    index = targets.labels[None, :, :, None].expand(rows, -1, -1, queries)
    return values.transpose(-1, -2).gather(2, index)


def cached_chunks(preds: Predictions, targets: Targets) -> Iterator[tuple[Predictions, Targets, slice, slice]]:
    """Parts of one image and some rows, without padding: predictions, targets, and the rows and targets they are in
    (R, N, Q).
    """
    rows, _, queries, _ = preds.boxes.shape
    start = 0
    for image, n in enumerate(targets.counts):
        own = slice(image, image + 1)
        truth = Targets(labels=targets.labels[own, :n], boxes=targets.boxes[own, :n], counts=[n])
        step = max(1, CACHED_PAIRS // max(1, n * queries))
        for row in range(0, rows if n else 0, step):
            part = dataclasses.replace(
                preds,
                logits=preds.logits[row : row + step, own],
                boxes=preds.boxes[row : row + step, own],
                iou=None if preds.iou is None else preds.iou[row : row + step, own],
                valid=None if preds.valid is None else preds.valid[own],
                allowed=None if preds.allowed is None else preds.allowed[own, :, :n],
            )
            yield part, truth, slice(row, row + step), slice(start, start + n)
        start += n


def places(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Image and place in it of each target, (N,) each."""
    image = np.repeat(np.arange(len(counts)), counts)
    return image, np.arange(len(image)) - np.repeat(np.cumsum([0, *counts])[:-1], counts)
