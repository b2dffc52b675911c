"""Losses of TSP-RCNN beside those of the library, and the criterion of its boxes."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from align_detr.layers.boxes import cxcywh_to_xyxy
from align_detr.modeling.losses.base import SetLoss, sum_by_row
from align_detr.projects.tsp.rcnn.rois import RoIPredictions, require_rois
from align_detr.structures import MAIN, Match, Predictions, Targets


class BackgroundFocalLoss(SetLoss):
    """Cross-entropy over K classes and background, the background's modulated: w 2 (1 - p)^gamma with p the probability
    of background, held constant, and w = `background_weight`; matched proposals weigh 1 (times the match's weight).

    Summed, divided by the sum of the weights w. Whatever is not matched is background, foreground proposals too. The
    modulation is that of the official code. There, an image batch in which nothing is matched costs nothing; here its
    background does.
    """

    def __init__(
        self, *, name: str = "obj", weight: float = 1.0, background_weight: float = 0.1, gamma: float = 2.0
    ) -> None:
        super().__init__(name=name, weight=weight)
        self.background_weight = background_weight
        self.gamma = gamma

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """logits (R, B, Q, K + 1) -> (R,); `num_boxes` plays no part."""
        log_p = preds.logits.float().log_softmax(-1)
        background = log_p[..., -1]
        matched = (match.row, match.image, match.query)
        w = torch.full_like(background, self.background_weight).index_put(matched, log_p.new_ones(()))
        w = w if preds.valid is None else w * preds.valid
        others = -2 * (1 - background.detach().exp()) ** self.gamma * background
        others = (w * others).index_put(matched, log_p.new_zeros(()))
        positives = -log_p[(*matched, match.of(targets.labels))]
        total = others.sum((1, 2)) + sum_by_row(positives, match, log_p.shape[0])
        return total / (w.sum((1, 2)) + 1e-6)


class DeltaL1Loss(SetLoss):
    """Absolute differences of box deltas, in the weighted space of their coder, summed over matches, divided by the
    normaliser (Fast R-CNN with beta = 0).
    """

    def __init__(self, *, name: str = "box_l1", weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """deltas (R, B, Q, 4) -> (R,)."""
        predicted = require_rois(preds)
        proposals = predicted.proposals[match.image, match.query]
        wanted = predicted.coder.encode(cxcywh_to_xyxy(match.of(targets.boxes)), proposals)
        loss = (match.at(predicted.deltas) - wanted).abs().sum(-1)
        return sum_by_row(loss, match, preds.logits.shape[0]) / num_boxes


class OwnMatcher(nn.Module):
    """Matches every foreground proposal to its own object: no assignment is solved, and an object may have many."""

    @torch.no_grad()
    def forward(self, sets: Mapping[str, RoIPredictions], targets: Targets) -> dict[str, Match]:
        """A match for every set."""
        return {name: preds.own_match() for name, preds in sets.items()}


class ProposalCriterion(nn.Module):
    """Losses divided by the number of sampled proposals of this process, as Fast R-CNN's are, at least 1.

    With `OwnMatcher` and box losses it is the second half of TSP-RCNN's published recipe: classes are a set loss, boxes
    learn from all foreground proposals. With a `HungarianMatcher` boxes learn from the matched alone.
    """

    def __init__(self, *, matcher: nn.Module, losses: Sequence[SetLoss]) -> None:
        super().__init__()
        self.matcher = matcher
        self.losses = nn.ModuleList(losses)

    def forward(self, sets: Mapping[str, RoIPredictions], targets: Targets) -> dict[str, Tensor]:
        """Weighted 0-d losses by name of the set `main`, in float32 whatever autocast says."""
        with torch.autocast(targets.boxes.device.type, enabled=False):
            preds = sets[MAIN].float()
            match = self.matcher({MAIN: preds}, targets)[MAIN]
            count = sets[MAIN].valid.sum().clamp(min=1).float()
            return {f"loss_{loss.name}": loss(preds, targets, match, count).sum() * loss.weight for loss in self.losses}
