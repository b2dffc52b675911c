"""Matching of points: two costs for the library's matcher, and the matcher that pairs each point with its owner."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from align_detr.modeling.matcher import Cost
from align_detr.projects.tsp.checks import require_type
from align_detr.projects.tsp.fcos.geometry import centerness, point_giou
from align_detr.projects.tsp.fcos.head import AssignedPredictions
from align_detr.structures import Match, Predictions, Targets


class CenternessClassCost(Cost):
    """-s (c + 1e-6): s is the probability of the target's class, c the centerness of the point in the target's box.

    As in the official code of TSP-FCOS; the paper has the probability only.
    """

    softmax = False

    @torch.no_grad()
    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """Return the costs (R, B, Q, T), in [-1, 0], without gradient."""
        rows, _, queries, _ = preds.logits.shape
        label = targets.labels[None, :, None].expand(rows, -1, queries, -1)
        central = centerness(require_type(preds, AssignedPredictions, self).target_distances)
        return -preds.logits.gather(-1, label).sigmoid() * (central + 1e-6)


class PointGIoUCost(Cost):
    """1 - generalised IoU, measured in strides; `smooth` is that of `point_giou`."""

    def __init__(self, *, weight: float, smooth: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.smooth = smooth

    @torch.no_grad()
    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """Return the costs (R, B, Q, T), without gradient.

        They are in [0, 2] for points inside the object's box; the matcher leaves out all others.
        """
        points = require_type(preds, AssignedPredictions, self)
        return 1 - point_giou(points.distances[:, :, :, None], points.target_distances, self.smooth)


class PointOwnerMatcher(nn.Module):
    """The matcher of TSP's box losses: every point is paired with its owner, and an owner may have many points.

    Points of the background and of padding are pairs of weight 0, because counting them would wait for the device.
    """

    @torch.no_grad()
    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """Return a match of R x B x Q pairs for every set."""
        return {name: self._match(require_type(preds, AssignedPredictions, self)) for name, preds in sets.items()}

    def _match(self, preds: AssignedPredictions) -> Match:
        foreground = preds.foreground
        counts = (torch.arange(n, device=foreground.device) for n in preds.logits.shape[:3])
        row, image, query = (x.flatten() for x in torch.meshgrid(*counts, indexing="ij"))
        target = preds.owner.clamp(min=0)[image, query]
        return Match(row, image, query, target, foreground[image, query].float())
