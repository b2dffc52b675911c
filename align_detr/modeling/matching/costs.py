"""Terms of the matching cost, for all rows and images of a prediction set at once."""

import numpy as np
import torch
from torch import Tensor

from align_detr.checks import ReadsLogits, check_number, check_share
from align_detr.modeling.matching.pairs import Pairs
from align_detr.structures import Predictions, Targets


class Cost(ReadsLogits):
    """Term of the matching cost: (preds, targets) -> (R, B, Q, T), small where a query suits a target; `weight`
    multiplies it. `softmax` is the kind of logits that it reads (see `ReadsLogits`).
    """

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        self.weight = self._check("weight", weight)

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """Return the cost of every query and target, (R, B, Q, T)."""
        raise NotImplementedError

    def _check(self, name: str, value: float, least: float | None = None) -> float:
        return check_number(value, f"model.criterion.matcher.costs: {name} of {type(self).__name__}", least)


class PairCost(Cost):
    """Cost that is a formula of a query and a target: the matcher computes it for the pairs of one image only, not for
    all queries of a batch with all its targets.
    """

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), in a new tensor."""
        raise NotImplementedError

    def overrides_forward(self) -> bool:
        """Return whether a subclass has its own `forward`, which then counts instead of `of_pairs`."""
        return type(self).forward is not PairCost.forward

    @torch.no_grad()
    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """Return the cost of every query and target, (R, B, Q, T) float32, without gradient."""
        images, longest = targets.labels.shape
        pairs = Pairs.padded(preds.float(), targets)  # n = B T
        return self.of_pairs(pairs).unflatten(1, (images, longest)).transpose(-1, -2)


class SoftmaxCost(PairCost):
    """Minus the softmax probability of the target's class (DETR, equation 1)."""

    softmax = True

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), in [-1, 0]."""
        normaliser = pairs.logits.logsumexp(-1)[:, pairs.image]  # (r, n, Q)
        return pairs.of_class(torch.clone).sub_(normaliser).exp_().neg_()


class FocalCost(PairCost):
    """Focal loss of the target's class as a positive, less that as a negative (Deformable-DETR, section A.3).

    On probabilities p = sigmoid(logit): alpha (1 - p)^gamma (-log(p + 1e-8)) - (1 - alpha) p^gamma (-log(1 - p +
    1e-8)).
    """

    softmax = False

    def __init__(self, *, weight: float, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(weight=weight)
        self.alpha = check_share(alpha, f"model.criterion.matcher.costs: alpha of {type(self).__name__}")
        self.gamma = self._check("gamma", gamma, least=0)

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), of any sign."""
        return pairs.of_class(lambda x: self._focal(x.sigmoid()))

    def _focal(self, p: Tensor) -> Tensor:
        q = 1 - p
        log_p, log_q = _log_(p + 1e-8), _log_(q + 1e-8)
        negative = (p**self.gamma).mul_(log_q).mul_(1 - self.alpha)
        return negative.addcmul_(q**self.gamma, log_p, value=-self.alpha)


class PositionModulatedCost(FocalCost):
    """`FocalCost` of p v^beta instead of p, with v = (GIoU + 1) / 2: a confident query far from the target is no longer
    cheap (Stable-DINO, Liu et al. 2023, the position-modulated cost; beta 0.5 there).
    """

    def __init__(
        self, *, weight: float, alpha: float = 0.25, gamma: float = 2.0, beta: float = 0.5, eps: float = 1e-6
    ) -> None:
        super().__init__(weight=weight, alpha=alpha, gamma=gamma)
        self.beta = self._check("beta", beta, least=0)
        self.eps = self._check("eps", eps, least=0)

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), of any sign."""
        overlap = pairs.giou(self.eps).add_(1).div_(2)  # at least 0: I / U and U / H are, rounding or not
        return self._focal(pairs.of_class(torch.sigmoid).mul_(overlap**self.beta))


class HighOrderCost(PairCost):
    """Minus p u^power, of the sigmoid probability p of the target's class and the IoU u (Rank-DETR, Pu et al. 2023,
    the high-order matching cost; power 4 there and in DEIMv2): a query is cheap if it is confident and well placed.

    Meant as the only cost, and late in training (`SwitchedMatcher`): of the queries that do not overlap a target, none
    is cheaper than another. `eps` as in `align_detr.layers.boxes.box_iou`.
    """

    softmax = False

    def __init__(self, *, weight: float, power: float = 4.0, eps: float = 0.0) -> None:
        super().__init__(weight=weight)
        self.power = self._check("power", power, least=0)
        self.eps = self._check("eps", eps, least=0)

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), in [-1, 0]."""
        return pairs.iou(self.eps).pow_(self.power).mul_(pairs.of_class(torch.sigmoid)).neg_()


class L1Cost(PairCost):
    """Sum of the absolute differences of the four normalised cxcywh numbers (DETR, equation 9)."""

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), at least 0."""
        x, y, half_width, half_height = pairs.distance  # (r, n, Q) each
        return (x + y).add_(half_width + half_height, alpha=2)


class GIoUCost(PairCost):
    """Minus the generalised IoU (DETR, equation 10); `eps` as in `align_detr.layers.boxes.box_iou`."""

    def __init__(self, *, weight: float, eps: float = 0.0) -> None:
        super().__init__(weight=weight)
        self.eps = self._check("eps", eps, least=0)

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Return the cost of each pair, (r, n, Q), in [-1, 1]."""
        return pairs.giou(self.eps).neg_()


def _log_(x: Tensor) -> Tensor:
    """Take the logarithm, in place. On a CPU NumPy's takes a third of the time of PyTorch's."""
    if x.device.type != "cpu":
        return x.log_()
    np.log(x.numpy(), out=x.numpy())
    return x
