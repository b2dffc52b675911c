"""Matching of points: the terms of the cost, for the library's matcher, which leaves out what is not `allowed`; and the
match of every point with the object it belongs to.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from align_detr.modeling.matcher import Cost
from align_detr.projects.tsp.fcos.geometry import centerness, point_giou
from align_detr.projects.tsp.fcos.head import AssignedPredictions, require_points
from align_detr.structures import Match, Predictions, Targets


class CenternessClassCost(Cost):
    """-s (c + 1e-6): the probability s of the target's class, less from where the point lies off the centre of the
    target's box, c being its centerness there (TSP-FCOS, official code; the paper has the probability alone).
    """

    @torch.no_grad()
    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T) in [-1, 0], without gradient."""
        rows, _, queries, _ = preds.logits.shape
        label = targets.labels[None, :, None].expand(rows, -1, queries, -1)
        return -preds.logits.gather(-1, label).sigmoid() * (centerness(require_points(preds).target_distances) + 1e-6)


class PointGIoUCost(Cost):
    """1 - generalised IoU in strides; `smooth` as in `point_giou`."""

    def __init__(self, *, weight: float, smooth: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.smooth = smooth

    @torch.no_grad()
    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T) in [0, 2], without gradient; points outside an object's box, which the matcher leaves out, may
        exceed it.
        """
        points = require_points(preds)
        return 1 - point_giou(points.distances[:, :, :, None], points.target_distances, self.smooth)


class OwnershipMatcher(nn.Module):
    """Every point with the object it belongs to, known beforehand and many to one: what TSP's box losses are taken
    over. Points of the background, and of padding, are among the pairs with weight 0, since their number is not known
    without asking the device.
    """

    @torch.no_grad()
    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """A match of R x B x Q pairs for every set."""
        return {name: self._match(require_points(preds)) for name, preds in sets.items()}

    def _match(self, preds: AssignedPredictions) -> Match:
        foreground = preds.foreground
        counts = (torch.arange(n, device=foreground.device) for n in preds.logits.shape[:3])
        row, image, query = (x.flatten() for x in torch.meshgrid(*counts, indexing="ij"))
        target = preds.owner.clamp(min=0)[image, query]
        return Match(row, image, query, target, foreground[image, query].float())
