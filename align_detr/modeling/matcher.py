"""Matching of predictions to targets: costs for all rows and images at once, one copy to the host, assignment there,
one copy back.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from align_detr.layers.boxes import cxcywh_to_xyxy, pairwise_giou
from align_detr.structures import Match, Predictions, Targets


class Cost(nn.Module):
    """One term of the matching cost: (preds, targets) -> (R, B, Q, T), small where a query suits a target; `weight`
    multiplies it.
    """

    def __init__(self, *, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        raise NotImplementedError


class SoftmaxCost(Cost):
    """Minus the softmax probability of the target's class (DETR, equation 1)."""

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T) in [-1, 0]."""
        return -_of_target_class(preds.logits.softmax(-1), targets)


class FocalCost(Cost):
    """Focal loss of the target's class as a positive, less that as a negative (Deformable-DETR, section A.3), on
    probabilities p = sigmoid(logit):

    alpha (1 - p)^gamma (-log(p + 1e-8)) - (1 - alpha) p^gamma (-log(1 - p + 1e-8)).
    """

    def __init__(self, *, weight: float, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__(weight=weight)
        self.alpha = alpha
        self.gamma = gamma

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T)."""
        p = preds.logits.sigmoid()
        positive = self.alpha * (1 - p) ** self.gamma * -(p + 1e-8).log()
        negative = (1 - self.alpha) * p**self.gamma * -(1 - p + 1e-8).log()
        return _of_target_class(positive - negative, targets)


class L1Cost(Cost):
    """Sum of the absolute differences of the four normalised cxcywh numbers (DETR, equation 9)."""

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T)."""
        return (preds.boxes[..., :, None, :] - targets.boxes[:, None]).abs().sum(-1)


class GIoUCost(Cost):
    """Minus the generalised IoU (DETR, equation 10); `eps` as in `align_detr.layers.boxes.box_iou`."""

    def __init__(self, *, weight: float, eps: float = 0.0) -> None:
        super().__init__(weight=weight)
        self.eps = eps

    def forward(self, preds: Predictions, targets: Targets) -> Tensor:
        """(R, B, Q, T) in [-1, 1]."""
        return -pairwise_giou(cxcywh_to_xyxy(preds.boxes), cxcywh_to_xyxy(targets.boxes), self.eps)


class HungarianMatcher(nn.Module):
    """The cheapest assignment of targets to queries in every row and image (DETR, equation 1).

    `costs` are summed with their weights. `copies[set]` repeats each target: a number for all rows, or one a row
    (Align-DETR, section 3.4); it is bounded image by image to max(1, min(k, Q // (2 n))) for n targets, so that at most
    half of the queries are taken by copies, the order of the images plays no part, and no image goes without matches.
    More targets than queries leave the costliest targets unmatched.
    """

    def __init__(self, *, costs: Sequence[Cost], copies: Mapping[str, int | Sequence[int]] | None = None) -> None:
        super().__init__()
        self.costs = nn.ModuleList(costs)
        self.copies = {name: k if isinstance(k, int) else list(k) for name, k in (copies or {}).items()}

    @torch.no_grad()
    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """A match for every set; sets that know theirs keep it. Raises ValueError where a cost is not finite, naming
        set, layer, image and query.
        """
        unsolved = {name: preds for name, preds in sets.items() if preds.match is None}
        costs = {name: self.cost(preds, targets) for name, preds in unsolved.items()}
        host = _copy_to_host(list(costs.values()))
        rows = [self._solve(name, cost, targets.counts) for name, cost in zip(costs, host, strict=True)]
        found = _copy_to_device(rows, targets.labels.device)
        solved = dict(zip(costs, found, strict=True))
        return {name: solved[name] if preds.match is None else preds.match for name, preds in sets.items()}

    def cost(self, preds: Predictions, targets: Targets) -> Tensor:
        """Weighted sum of all costs, (R, B, Q, T) float32 whatever autocast says; pairs that may not be matched cost
        1e6 more.
        """
        with torch.autocast(preds.boxes.device.type, enabled=False):
            preds = preds.float()
            total = sum(cost.weight * cost(preds, targets) for cost in self.costs)
            if preds.valid is not None:
                total = total + 1e6 * (~preds.valid)[None, :, :, None]
            if preds.allowed is not None:
                total = total + 1e6 * (~preds.allowed)[None]
            return total

    def _solve(self, name: str, cost: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """cost (R, B, Q, T) -> (4, M): row, image, query, target of every pair, ordered by row, image and query."""
        copies = self.copies.get(name, 1)
        num_rows, _, num_queries, _ = cost.shape
        copies = [copies] * num_rows if isinstance(copies, int) else copies
        if len(copies) != num_rows:
            raise ValueError(
                f"matcher.copies of set '{name}' names {len(copies)} rows, but the model predicts {num_rows}: "
                "give one number for each"
            )
        pairs = [np.empty((4, 0), np.int64)]
        for row in range(num_rows):
            for image, n in enumerate(counts):
                if n:
                    block = cost[row, image, :, :n]
                    _check_finite(block, name, row, image)
                    k = max(1, min(copies[row], num_queries // (2 * n)))
                    query, target = linear_sum_assignment(np.tile(block, k) if k > 1 else block)
                    kept = (
                        block[query, target % n] < 5e5
                    )  # a pair that may not be matched is left out, even where nothing else was free
                    query, target = query[kept], target[kept] % n
                    pairs.append(np.stack([np.full_like(query, row), np.full_like(query, image), query, target]))
        return np.concatenate(pairs, axis=1)


def _of_target_class(values: Tensor, targets: Targets) -> Tensor:
    """values (R, B, Q, K) -> (R, B, Q, T): each target's class."""
    rows, _, queries, _ = values.shape
    return values.gather(-1, targets.labels[None, :, None].expand(rows, -1, queries, -1))


def _check_finite(block: np.ndarray, name: str, row: int, image: int) -> None:
    if not np.isfinite(block).all():
        query = int((~np.isfinite(block)).any(axis=1).argmax())
        raise ValueError(
            f"a matching cost is not finite: set '{name}', layer {row}, image {image} of the batch, query {query} is "
            "the first; the model predicts NaN or infinity there: lower the learning rate, or look for the first layer "
            "whose output is not finite"
        )


def _copy_to_host(costs: Sequence[Tensor]) -> list[np.ndarray]:
    """All cost tensors in one copy: the only time in a training step that the host waits for the device."""
    if not costs:
        return []
    flat = torch.cat([cost.flatten() for cost in costs]).cpu().numpy()
    parts = np.split(flat, np.cumsum([cost.numel() for cost in costs])[:-1])
    return [part.reshape(cost.shape) for part, cost in zip(parts, costs, strict=True)]


def _copy_to_device(pairs: Sequence[np.ndarray], device: torch.device) -> list[Match]:
    if not pairs:
        return []
    indices = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device, non_blocking=True)
    return [Match(*part) for part in indices.split([p.shape[1] for p in pairs], dim=1)]
