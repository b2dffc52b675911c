"""The losses of TSP-FCOS. Each is normalised by a number of points, averaged over the processes."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align_detr.layers.reduce import mean_over_ranks
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import SetLoss, SigmoidFocalLoss
from align_detr.modeling.losses.base import sum_by_row
from align_detr.projects.tsp.checks import check_every_image_counts, require_type
from align_detr.projects.tsp.fcos.assign import Assignment
from align_detr.projects.tsp.fcos.geometry import centerness, point_giou
from align_detr.projects.tsp.fcos.head import AssignedPredictions, PointPredictions
from align_detr.projects.tsp.fcos.points import Points
from align_detr.structures import MAIN, Match, Predictions, Targets


class RestrictedFocalLoss(SigmoidFocalLoss):
    """Focal loss with matched points as positives and everything else as negatives.

    An unmatched point of an object is nearly a positive: its term at that object's class weighs `unmatched_weight`. The
    sum is divided by `matched_norm` x matched points + `foreground_norm` x points of objects, each count at least 1.
    The default is the official script's "mixed_2x"; "mixed" is (1, 0.1), "set" (1, 0) and "all" (0, 1).
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

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row: logits (R, B, Q, K) -> (R,).

        `match.weight`, if given, weights the matched points. `num_boxes` is not used.
        """
        points = require_type(preds, AssignedPredictions, self)
        logits, matched = preds.logits.float(), (match.row, match.image, match.query)
        labels = targets.labels.new_full(logits.shape[:-1], logits.shape[-1])
        labels = labels.index_put(matched, match.of(targets.labels))
        weight = None
        if match.weight is not None:
            weight = logits.new_ones(labels.shape).index_put(matched, match.weight)
        loss = self.elementwise(logits, labels, logits.new_zeros(labels.shape), weight)
        loss = (loss * self.element_weight(points, targets, labels)).sum(-1)
        if points.valid is not None:
            loss = torch.where(points.valid, loss, 0.0)
        counts = torch.stack([logits.new_full((), float(len(match))), points.foreground.sum().float()])
        num_matched, num_foreground = mean_over_ranks(counts).clamp(min=1).unbind()
        return loss.sum((1, 2)) / (self.matched_norm * num_matched + self.foreground_norm * num_foreground)

    def element_weight(self, preds: AssignedPredictions, targets: Targets, labels: Tensor) -> Tensor:
        """Return the weight of each term, (R, B, Q, K), for the matching's labels (R, B, Q), K for background."""
        of_owner = targets.labels.gather(1, preds.owner.clamp(min=0))
        of_owner = torch.where(preds.foreground, of_owner, -1)[..., None]
        classes = torch.arange(preds.logits.shape[-1], device=of_owner.device)
        unmatched = (of_owner == classes) & (labels[..., None] != classes)
        return torch.where(unmatched, self.unmatched_weight, 1.0)


class DownweightedFocalLoss(RestrictedFocalLoss):
    """RestrictedFocalLoss with `unmatched_weight` at all classes of every point of an object, matched or not.

    The official code does this without ONLY_REWEIGHT_FG.
    """

    def element_weight(self, preds: AssignedPredictions, targets: Targets, labels: Tensor) -> Tensor:
        """Return the weight of each point, (B, Q, 1)."""
        return torch.where(preds.foreground, self.unmatched_weight, 1.0)[..., None]


class PointGIoULoss(SetLoss):
    """Mean of 1 - generalised IoU over the matched pairs, weighted by the centerness of the point in the target's box.

    The IoU is measured in strides (TSP-FCOS, official code); `smooth` is that of `point_giou`.
    """

    def __init__(self, *, name: str = "giou", weight: float = 1.0, smooth: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)
        self.smooth = smooth

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row, (R,); `num_boxes` is not used."""
        points = require_type(preds, AssignedPredictions, self)
        wanted = target_sides(points, match)
        central = centerness(wanted)
        loss = central * (1 - point_giou(match.at(points.distances), wanted, self.smooth))
        total = mean_over_ranks(sum_by_row(central, match, preds.logits.shape[0])).clamp(min=1e-6)
        return sum_by_row(loss, match, preds.logits.shape[0]) / total


class CenternessLoss(SetLoss):
    """Binary cross-entropy between predicted centerness and that of the point in the target's box.

    The mean is taken over the matched pairs (FCOS, Tian et al. 2019, section 3.3).
    """

    def __init__(self, *, name: str = "centerness", weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row, (R,); `num_boxes` is not used."""
        points = require_type(preds, AssignedPredictions, self)
        wanted = centerness(target_sides(points, match))
        entropy = F.binary_cross_entropy_with_logits(match.at(points.centerness), wanted, reduction="none")
        pairs = mean_over_ranks(sum_by_row(torch.ones_like(wanted), match, preds.logits.shape[0])).clamp(min=1)
        return sum_by_row(entropy, match, preds.logits.shape[0]) / pairs


class DenseFocalLoss(nn.Module):
    """Focal loss of the dense classifier over all points of all levels, with padding as background.

    The sum is divided by the number of foreground points, at least 1. A classifier of one class learns foreground.
    """

    def __init__(self, *, weight: float = 1.0, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        self.weight = weight
        self.focal = SigmoidFocalLoss(alpha=alpha, gamma=gamma)

    def forward(self, points: Points, assignment: Assignment) -> Tensor:
        """Return the weighted loss of `points.logits` (B, P, K), 0-d."""
        logits = points.logits.float()
        labels, foreground = assignment.labels, assignment.labels >= 0
        if logits.shape[-1] == 1:
            labels = torch.where(foreground, 0, -1)
        loss = self.focal.elementwise(logits, labels, logits.new_zeros(labels.shape)).sum()
        return self.weight * loss / mean_over_ranks(foreground.sum().float()).clamp(min=1)


class PointCriterion(nn.Module):
    """The four losses of TSP-FCOS (TSP, section 4.3).

    `matched` is the set loss on classes, `foreground` the losses on boxes and centerness of all points of objects (not
    a set loss, as in the official code), and `dense` the loss of the dense classifier.
    """

    def __init__(self, *, matched: SetCriterion, foreground: SetCriterion, dense: nn.Module) -> None:
        super().__init__()
        check_every_image_counts(matched.matcher, "model.criterion.matched.matcher")
        self.matched = matched
        self.foreground = foreground
        self.dense = dense

    def forward(
        self, preds: PointPredictions, points: Points, assignment: Assignment, targets: Targets
    ) -> dict[str, Tensor]:
        """Return the weighted 0-d losses by name, in float32 even under autocast."""
        sets = {MAIN: preds.assigned(assignment)}
        losses = self.matched(sets, targets)
        losses.update(self.foreground(sets, targets))
        with torch.autocast(targets.boxes.device.type, enabled=False):
            losses["loss_class_dense"] = self.dense(points, assignment)
        return losses


def target_sides(preds: AssignedPredictions, match: Match) -> Tensor:
    """Return the distances (M, 4) from each matched point to the sides of its target.

    They are 1 where the weight of the pair is 0, so that no value of a background point reaches a gradient.
    """
    sides = preds.target_distances[match.image, match.query, match.target]
    return sides if match.weight is None else torch.where(match.weight[:, None] > 0, sides, 1.0)
