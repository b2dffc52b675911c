"""Weights of matched queries."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from align_detr.checks import ReadsLogits, check_number, check_share, is_number
from align_detr.errors import ConfigError
from align_detr.modeling.losses.quality import alignment_quality, matched_iou, matched_logits
from align_detr.structures import Match, Predictions, Targets

SMALLEST_IOU = 1e-6  # of `DualWeighting`: its logarithm is finite
LARGEST_EXPONENT = 80  # of `DualWeighting`: exp(88.7) exceeds float32


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
        bag = bags(targets, match)
        return dataclasses.replace(match, weight=torch.exp(-rank_in_bag(bag, quality, match.query) / self.tau))


class DualWeighting(ReadsLogits):
    """Weight exp(mu t) t, with t = s u^beta of probability s and IoU u, divided by the sum of exp(bag_mu t) t over the
    queries of the same target in the same row: a query is positive as far as its score and its box agree (DW, Li et al.
    2022, the positive weight; `DualWeightingLoss` has the negative one).

    `bag_mu` is `mu` unless given: then the weights of a target's queries add up to 1, and a query that is alone has
    weight 1. The released code has 5, 5 and 3, and exp(GIoU - 1) for the IoU. The bag of a target holds the anchors
    near its centre there, and the queries matched to it here. Where nothing overlaps, queries share by their scores.
    """

    softmax = False  # s is a sigmoid probability

    def __init__(self, *, beta: float = 5.0, mu: float = 5.0, bag_mu: float | None = None) -> None:
        super().__init__()
        key = "model.criterion.weighting"
        self.beta = check_number(beta, f"{key}.beta", least=0)
        self.mu = check_number(mu, f"{key}.mu")
        self.bag_mu = mu if bag_mu is None else check_number(bag_mu, f"{key}.bag_mu")
        if self.mu - self.bag_mu > LARGEST_EXPONENT:
            raise ConfigError(
                f"{key}.mu is {mu} and bag_mu {bag_mu}: weights of up to exp(mu - bag_mu) exceed float32; let mu "
                f"exceed bag_mu by at most {LARGEST_EXPONENT}."
            )

    @torch.no_grad()
    def forward(self, preds: Predictions, targets: Targets, match: Match) -> Match:
        """Return the match with these weights, which scale the class loss's positive term and the box losses."""
        iou = matched_iou(preds, targets, match).clamp(min=SMALLEST_IOU)
        log_t = F.logsigmoid(matched_logits(preds, targets, match).float()) + self.beta * iou.log()  # (M,)
        t, bag = log_t.exp(), bags(targets, match)
        exponent = self.bag_mu * t + log_t
        num_bags = len(preds.logits) * targets.labels.numel()
        largest = exponent.new_full((num_bags,), -torch.inf).scatter_reduce(0, bag, exponent, "amax")[bag]
        total = exponent.new_zeros(num_bags).index_add(0, bag, torch.exp(exponent - largest))[bag]
        return dataclasses.replace(match, weight=torch.exp(self.mu * t + log_t - largest) / total)


def bags(targets: Targets, match: Match) -> Tensor:
    """Return the number of the bag (row, image, target) of each match, (M,) int64, below R B T."""
    images, longest = targets.labels.shape
    return (match.row * images + match.image) * longest + match.target


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
