"""The one interface of the classification losses on sigmoid logits: two weights on the two terms of the binary
cross-entropy.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from align_detr.checks import check_number, check_share
from align_detr.errors import ConfigError
from align_detr.modeling.losses.base import SetLoss, sum_by_row
from align_detr.modeling.losses.quality import matched_iou, matched_logits
from align_detr.structures import Match, Predictions, Targets

Weight = Tensor | float


class BinaryLoss(SetLoss):
    """Weighted binary cross-entropy -w_pos ln s - w_neg ln(1 - s) over all queries and classes, summed, divided by the
    number of targets (Align-DETR, appendix C).

    A loss defines `positive(s, u, w)`, both weights of a matched query at its target's class, and `negative(s)`, w_neg
    of everything else, whose w_pos is 0: s is the probability, u the IoU (detrex's, with 1e-6 in the union), w the
    prime-sample weight (1 if there is none). Gradients pass through s unless a loss detaches it, never through u.
    Everything is float32 on logits and finite for logits of +-1e4.
    """

    softmax = False

    def __init__(self, *, name: str = "class", weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return (w_pos, w_neg) of matched queries; s and u have one shape."""
        raise NotImplementedError

    def negative(self, s: Tensor) -> Weight:
        """Return w_neg of all other queries and classes."""
        raise NotImplementedError

    def overlap(self, preds: Predictions, targets: Targets, match: Match) -> Tensor:
        """Return u of each match, (M,)."""
        return matched_iou(preds, targets, match)

    def elementwise(self, logits: Tensor, labels: Tensor, iou: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of plain tensors, neither summed nor divided: logits (..., K), labels (...) with K for
        background, iou and weight (...), which are read where there is an object -> (..., K).
        """
        logits = logits.float()
        matched = labels[..., None] == torch.arange(logits.shape[-1], device=logits.device)
        # Without an object, the IoU may hold anything, but its root must not be NaN: the selection below would keep it
        # out of the value, but not out of the gradient.
        u = torch.where(matched, iou.float().detach()[..., None], 0.0)
        w = 1.0 if weight is None else torch.where(matched, weight.float()[..., None], 1.0)
        return torch.where(matched, self._of_matched(logits, u, w), self._of_others(logits))

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row: logits (R, B, Q, K) -> (R,)."""
        logits = preds.logits.float()
        entry = (match.row, match.image, match.query, match.of(targets.labels))  # of the matched class, (M,) each
        w = 1.0 if match.weight is None else match.weight.float()
        overlap = self.overlap(preds, targets, match)
        positives = self._of_matched(matched_logits(preds, targets, match).float(), overlap, w)  # (M,)
        others = self._of_others(logits).index_put(entry, logits.new_zeros(()))
        if preds.valid is not None:
            others = torch.where(preds.valid[..., None], others, 0.0)
        plain = Match(match.row, match.image, match.query, match.target)  # w is in the positives already
        return (others.sum((1, 2, 3)) + sum_by_row(positives, plain, logits.shape[0])) / num_boxes

    def _of_matched(self, logits: Tensor, u: Tensor, w: Weight) -> Tensor:
        w_pos, w_neg = self.positive(logits.sigmoid(), u, w)
        return w_pos * F.softplus(-logits) + w_neg * F.softplus(logits)

    def _of_others(self, logits: Tensor) -> Tensor:
        return self.negative(logits.sigmoid()) * F.softplus(logits)


class FocusedLoss(BinaryLoss):
    """Binary loss with a focusing exponent `gamma`: s^gamma is w_neg of everything that is not matched."""

    def __init__(self, *, name: str = "class", weight: float = 1.0, gamma: float = 2.0) -> None:
        super().__init__(name=name, weight=weight)
        key = f"model.criterion.losses: gamma of {type(self).__name__}"
        self.gamma = check_number(gamma, key)
        if gamma != 0 and gamma < 1:
            raise ConfigError(
                f"{key} is {gamma}, but must be 0 or at least 1: set it to such a number; in between, the gradient of "
                "the focusing term is infinite where the term vanishes."
            )

    def negative(self, s: Tensor) -> Weight:
        """Return s^gamma."""
        return s**self.gamma


class SigmoidFocalLoss(FocusedLoss):
    """Focal loss, alpha (1 - s)^gamma and 0; (1 - alpha) s^gamma for all others (RetinaNet, Lin et al. 2017, equation
    5; Deformable-DETR and detrex: summed over queries and classes, divided by the number of targets). w scales w_pos.
    """

    def __init__(self, *, name: str = "class", weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(name=name, weight=weight, gamma=gamma)
        self.alpha = check_share(alpha, f"model.criterion.losses: alpha of {type(self).__name__}")

    def positive(self, s: Tensor, u: Tensor, w: Weight) -> tuple[Weight, Weight]:
        """Return w alpha (1 - s)^gamma, 0."""
        return w * self.alpha * (1 - s) ** self.gamma, 0.0

    def negative(self, s: Tensor) -> Weight:
        """Return (1 - alpha) s^gamma."""
        return (1 - self.alpha) * s**self.gamma
