"""TSP-FCOS's losses, each with its own normaliser: mean numbers over the processes, not of objects but of points."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.layers.reduce import mean_over_ranks
from align_detr.modeling.losses import SetLoss, SigmoidFocalLoss
from align_detr.modeling.losses.base import sum_by_row
from align_detr.projects.tsp.encoder import check_every_image_counts
from align_detr.projects.tsp.fcos.assign import Assignment
from align_detr.projects.tsp.fcos.geometry import centerness, point_giou
from align_detr.projects.tsp.fcos.head import PointPredictions
from align_detr.projects.tsp.fcos.matching import is_foreground
from align_detr.projects.tsp.fcos.points import Points
from align_detr.structures import MAIN, Match, Targets


class RestrictedFocalLoss(SigmoidFocalLoss):
    """Focal loss of matched points as positives and all else as negatives, where an unmatched point of an object weighs
    `unmatched_weight` at that object's class: it is nearly a positive.

    Divided by `matched_norm` x matched points + `foreground_norm` x points of objects, each at least 1. The official
    script's "mixed_2x" is the default; its "mixed" is (1, 0.1), "set" (1, 0) and "all" (0, 1).
    """

    def __init__(
        self,
        *,
        name: str = "class",
        weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        unmatched_weight: float = 0.1,
        matched_norm: float = 2.0,
        foreground_norm: float = 0.2,
    ) -> None:
        super().__init__(name=name, weight=weight, alpha=alpha, gamma=gamma)
        self.unmatched_weight = unmatched_weight
        self.matched_norm = matched_norm
        self.foreground_norm = foreground_norm

    def forward(self, preds: PointPredictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """logits (R, B, Q, K) -> (R,); `num_boxes` is not used. `match.weight`, if any, weighs the matched points."""
        logits, place = preds.logits.float(), (match.row, match.image, match.query)
        labels = targets.labels.new_full(logits.shape[:-1], logits.shape[-1]).index_put(place, match.of(targets.labels))
        weight = None
        if match.weight is not None:
            weight = logits.new_ones(labels.shape).index_put(place, match.weight)
        loss = self.elementwise(logits, labels, logits.new_zeros(labels.shape), weight)
        loss = (loss * self.element_weight(preds, targets, labels)).sum(-1)
        if preds.valid is not None:
            loss = torch.where(preds.valid, loss, 0.0)
        counts = [logits.new_full((), float(len(match))), is_foreground(preds).sum().float()]
        matched, foreground = mean_over_ranks(torch.stack(counts)).clamp(min=1).unbind()
        return loss.sum((1, 2)) / (self.matched_norm * matched + self.foreground_norm * foreground)

    def element_weight(self, preds: PointPredictions, targets: Targets, labels: Tensor) -> Tensor:
        """(R, B, Q, K) for the labels (R, B, Q) that the matching gives, K for background."""
        own = targets.labels.gather(1, preds.owner.clamp(min=0))
        own = torch.where(is_foreground(preds), own, -1)[..., None]
        classes = torch.arange(preds.logits.shape[-1], device=own.device)
        unmatched = (own == classes) & (labels[..., None] != classes)
        return torch.where(unmatched, self.unmatched_weight, 1.0)


class DownweightedFocalLoss(RestrictedFocalLoss):
    """The same with `unmatched_weight` at all classes of every point of an object, the matched ones included: what the
    official code does without ONLY_REWEIGHT_FG.
    """

    def element_weight(self, preds: PointPredictions, targets: Targets, labels: Tensor) -> Tensor:
        """(B, Q, 1)."""
        return torch.where(is_foreground(preds), self.unmatched_weight, 1.0)[..., None]


class PointGIoULoss(SetLoss):
    """1 - generalised IoU in strides of the pairs, weighted by the points' centerness in the target's box, a mean by
    these weights (TSP-FCOS, official code). `smooth` as in `point_giou`.
    """

    def __init__(self, *, name: str = "giou", weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)
        self.smooth = smooth

    def forward(self, preds: PointPredictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """(R,); `num_boxes` is not used."""
        wanted = _wanted(preds, match)
        central = centerness(wanted)
        loss = central * (1 - point_giou(match.at(preds.distances), wanted, self.smooth))
        total = mean_over_ranks(sum_by_row(central, match, preds.logits.shape[0])).clamp(min=1e-6)
        return sum_by_row(loss, match, preds.logits.shape[0]) / total


class CenternessLoss(SetLoss):
    """Binary cross-entropy of the predicted centerness with the point's in the target's box, a mean over the pairs
    (FCOS, Tian et al. 2019, section 3.3).
    """

    def __init__(self, *, name: str = "centerness", weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)

    def forward(self, preds: PointPredictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """(R,); `num_boxes` is not used."""
        wanted = centerness(_wanted(preds, match))
        entropy = F.binary_cross_entropy_with_logits(match.at(preds.centerness), wanted, reduction="none")
        pairs = mean_over_ranks(sum_by_row(torch.ones_like(wanted), match, preds.logits.shape[0])).clamp(min=1)
        return sum_by_row(entropy, match, preds.logits.shape[0]) / pairs


class DenseFocalLoss(nn.Module):
    """Focal loss of the dense classifier over all points of all levels, padding included as background, divided by the
    number of foreground points, at least 1. A classifier of one class learns foreground.
    """

    def __init__(self, *, weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.weight = weight
        self.focal = SigmoidFocalLoss(alpha=alpha, gamma=gamma)

    def forward(self, points: Points, assignment: Assignment) -> Tensor:
        """Logits (B, P, K) -> 0-d."""
        logits = points.logits.float()
        labels, foreground = assignment.labels, assignment.labels >= 0
        if logits.shape[-1] == 1:
            labels = torch.where(foreground, 0, -1)
        loss = self.focal.elementwise(logits, labels, logits.new_zeros(labels.shape)).sum()
        return self.weight * loss / mean_over_ranks(foreground.sum().float()).clamp(min=1)


class PointCriterion(nn.Module):
    """TSP-FCOS's four losses: classes on the matched set, boxes and centerness on all points of objects, and the dense
    classifier (TSP, section 4.3; that boxes are no set loss is the official code's).
    """

    def __init__(self, *, matched: nn.Module, foreground: nn.Module, dense: nn.Module) -> None:
        super().__init__()
        check_every_image_counts(matched.matcher, "model.criterion.matched.matcher")
        self.matched = matched
        self.foreground = foreground
        self.dense = dense

    def forward(
        self, preds: PointPredictions, points: Points, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Weighted 0-d losses by name, in float32 whatever autocast says."""
        preds = preds.assigned(assignment)
        losses = self.matched({MAIN: preds}, targets)
        losses.update(self.foreground({MAIN: preds}, targets))
        with torch.autocast(targets.boxes.device.type, enabled=False):
            losses["loss_class_dense"] = self.dense(points, assignment)
        return losses


def _wanted(preds: PointPredictions, match: Match) -> Tensor:
    """Distances (M, 4) from each point to the sides of its target, or 1 where the pair weighs nothing: whatever a
    background point would give must not reach a gradient.
    """
    wanted = preds.target_distances[match.image, match.query, match.target]
    return wanted if match.weight is None else torch.where(match.weight[:, None] > 0, wanted, 1.0)
