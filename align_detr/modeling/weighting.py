"""Weights of matched queries."""

import dataclasses
import math

import torch
from torch import Tensor

from align_detr.checks import ReadsLogits, check_share, is_number
from align_detr.errors import ConfigError
from align_detr.modeling.losses.quality import alignment_quality, matched_iou, matched_logits
from align_detr.structures import Match, Predictions, Targets


class PrimeSampleWeighting(ReadsLogits):
    """Weight exp(-r / tau) of the query of rank r = 0, 1, ... among the queries of one target in one row, by quality t,
    best first (Align-DETR, section 3.4, equations 6 and 7).

    `alpha` is the share of the probability in t (see `alignment_quality`); with `tau` = inf all weights are 1. Queries
    of equal quality, frequent where nothing overlaps, rank by ascending index.
    """

    softmax = False  # t is made of sigmoid probabilities

    def __init__(self, *, alpha: float = 0.25, tau: float = 1.5) -> None:
        super().__init__()
        if tau != math.inf and not (is_number(tau) and tau > 0):
            raise ConfigError(
                f"model.criterion.weighting.tau is {tau!r}, but must be above 0: set it to a number, or to inf for "
                "equal weights."
            )
        self.alpha = check_share(alpha, "model.criterion.weighting.alpha")
        self.tau = tau

    @torch.no_grad()
    def forward(self, preds: Predictions, targets: Targets, match: Match) -> Match:
        """Return the match with these weights, which scale class targets and box losses."""
        s = matched_logits(preds, targets, match).float().sigmoid()
        quality = alignment_quality(s, matched_iou(preds, targets, match), self.alpha)
        images, longest = targets.labels.shape
        bag = (match.row * images + match.image) * longest + match.target
        return dataclasses.replace(match, weight=torch.exp(-rank_in_bag(bag, quality, match.query) / self.tau))


def rank_in_bag(bag: Tensor, quality: Tensor, query: Tensor) -> Tensor:
    """Return the rank of each member in its bag, by descending `quality`, then by ascending `query`: (M,) each -> (M,)
    int64. The bags may differ in size.
    """
    # Stable sorts by the least important key first: (M,) indices, bag after bag, each bag in the order of ranks.
    order = query.argsort(stable=True)
    order = order[quality[order].argsort(descending=True, stable=True)]
    order = order[bag[order].argsort(stable=True)]
    ordered = bag[order]
    position = torch.arange(len(bag), device=bag.device)  # less that of the first of its bag: the rank
    return torch.empty_like(position).index_put((order,), position - torch.searchsorted(ordered, ordered))
