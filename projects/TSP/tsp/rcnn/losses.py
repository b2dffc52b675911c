"""The losses that TSP-RCNN adds to the library's, and the criterion of its boxes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.layers.reduce import mean_over_ranks
from align_detr.modeling.losses.base import SetLoss, sum_by_row
from align_detr.projects.tsp.checks import require_type
from align_detr.projects.tsp.rcnn.rois import RoIPredictions
from align_detr.structures import MAIN, Match, Predictions, Targets


class BackgroundFocalLoss(SetLoss):
    """Cross-entropy over K classes and background, with a modulated background term.

    A matched proposal weighs 1, times the match's weight. Every other proposal is background, even if it belongs to an
    object, and weighs w = `background_weight`; its term is multiplied by 2 (1 - p)^gamma, where the probability p of
    background has no gradient. The sum is divided by the sum of the weights, a mean over processes. The modulation is
    the official code's, where a batch without any match has no loss; here it trains background.
    """

    softmax = True

    def __init__(
        self, *, name: str = "obj", weight: float = 1.0, background_weight: float = 0.1, gamma: float = 2.0
    ) -> None:
        super().__init__(name=name, weight=weight)
        self.background_weight = background_weight
        self.gamma = gamma

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row: logits (R, B, Q, K + 1) -> (R,); `num_boxes` is not used."""
        log_p = preds.logits.float().log_softmax(-1)  # (R, B, Q, K + 1)
        background = log_p[..., -1]
        matched = (match.row, match.image, match.query)
        weights = torch.full_like(background, self.background_weight).index_put(matched, log_p.new_ones(()))
        weights = weights if preds.valid is None else weights * preds.valid
        negatives = -2 * (1 - background.detach().exp()) ** self.gamma * background
        negatives = (weights * negatives).index_put(matched, log_p.new_zeros(()))
        positives = -log_p[(*matched, match.of(targets.labels))]  # (M,)
        total = negatives.sum((1, 2)) + sum_by_row(positives, match, log_p.shape[0])
        return total / (mean_over_ranks(weights.sum((1, 2))) + 1e-6)


class DeltaL1Loss(SetLoss):
    """Absolute differences of box deltas, as their coder weights them, summed over matches (Fast R-CNN, beta = 0)."""

    def __init__(self, *, name: str = "box_l1", weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row, divided by `num_boxes`: deltas (R, B, Q, 4) -> (R,)."""
        predicted = require_type(preds, RoIPredictions, self)
        proposals = predicted.proposals[match.image, match.query]
        wanted = predicted.coder.encode(cxcywh_to_xyxy(match.of(targets.boxes)), proposals)
        loss = (match.at(predicted.deltas) - wanted).abs().sum(-1)
        return sum_by_row(loss, match, preds.logits.shape[0]) / num_boxes


class ProposalOwnerMatcher(nn.Module):
    """The matcher of TSP-RCNN's box losses: every foreground proposal is paired with its owner, without assignment.

    An object may have many proposals.
    """

    @torch.no_grad()
    def forward(self, sets: Mapping[str, RoIPredictions], targets: Targets) -> dict[str, Match]:
        """Return a match for every set."""
        return {name: preds.match_owners() for name, preds in sets.items()}


class ProposalCriterion(nn.Module):
    """Losses divided by the number of sampled proposals of this process, at least 1, as in Fast R-CNN.

    With `ProposalOwnerMatcher` and box losses it is the second half of TSP-RCNN's published recipe: classes have a set
    loss, boxes learn from all foreground proposals. With a `HungarianMatcher` boxes learn from matched proposals only.
    """

    def __init__(self, *, matcher: nn.Module, losses: Sequence[SetLoss]) -> None:
        super().__init__()
        self.matcher = matcher
        self.losses = nn.ModuleList(losses)

    def forward(self, sets: Mapping[str, RoIPredictions], targets: Targets) -> dict[str, Tensor]:
        """Return the weighted 0-d losses of the set `main` by name, in float32 even under autocast."""
        with torch.autocast(targets.boxes.device.type, enabled=False):
            preds = sets[MAIN].float()
            match = self.matcher({MAIN: preds}, targets)[MAIN]
            count = sets[MAIN].valid.sum().clamp(min=1).float()
            return {f"loss_{loss.name}": loss(preds, targets, match, count).sum() * loss.weight for loss in self.losses}
