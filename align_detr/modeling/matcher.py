"""Matching of predictions to targets: costs for all rows and images at once, one copy to the host, assignment there,
one copy back.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from align_detr.checks import check_head
from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.modeling.events import log_scalar
from align_detr.modeling.matching.costs import (
    Cost,
    FocalCost,
    GIoUCost,
    L1Cost,
    PairCost,
    PositionModulatedCost,
    SoftmaxCost,
)
from align_detr.modeling.matching.limits import (
    FORBIDDEN,
    bounded,
    check_names,
    checked_copies,
    copies_of_rows,
    count_usable,
    set_price,
)
from align_detr.modeling.matching.pairs import image_and_index, in_parts
from align_detr.modeling.matching.solvers import solver_of
from align_detr.structures import Match, Predictions, Targets

__all__ = [
    "Cost",
    "FocalCost",
    "GIoUCost",
    "HungarianMatcher",
    "L1Cost",
    "PairCost",
    "PositionModulatedCost",
    "SoftmaxCost",
]

logger = logging.getLogger(__name__)


class HungarianMatcher(nn.Module):
    """The cheapest assignment of targets to queries in every row and image (DETR, equation 1).

    `costs` are summed with their weights. `copies[set]` repeats each target: a number for all rows, or one a decoder
    layer, which its query groups share (Align-DETR, section 3.4); it is bounded image by image to
    max(1, min(k, Q // (2 n))) for n targets and Q queries, padding not counted (where `allowed` says which pairs may
    be, all count), so that at most half of them are taken by copies, the order of the images plays no part, and no
    image goes without matches. More targets than queries leave the costliest unmatched.

    `on_nonfinite`, for an image with a prediction, of any set, or a cost that is NaN or infinite: "raise" raises
    NonFinitePrediction with set, layer, image and query; "skip" leaves the image out of the step. It then has no pair
    in any set, is named in `Match.skipped`, which criterion and detector obey, and is counted as `skipped_images` in
    detectron2's event storage and in a warning. Images that `Targets.left_out` names are skipped from the beginning:
    where the like happens to them, the image is not to blame, and NonFinitePrediction is raised.

    `solver` is "scipy", "numba", or "auto" (`matching/solvers.py`): numba, several times as fast, where it
    is installed, in as many threads as PyTorch takes. Of equally cheap assignments the two may find different ones.
    """

    def __init__(
        self,
        *,
        costs: Sequence[Cost],
        copies: Mapping[str, int | Sequence[int]] | None = None,
        on_nonfinite: str = "raise",
        solver: str = "auto",
    ) -> None:
        super().__init__()
        if on_nonfinite not in ("raise", "skip"):
            raise ConfigError(f'matcher.on_nonfinite is "{on_nonfinite}", but only "raise" and "skip" are known')
        if not costs:
            raise ConfigError("matcher.costs is empty: a matcher needs at least one cost")
        self.costs = nn.ModuleList(costs)
        self.copies = checked_copies(copies or {})
        self.on_nonfinite = on_nonfinite
        self.solver = solver_of(solver)

    @torch.no_grad()
    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """A match for every set; sets that know theirs keep it."""
        check_names(self.copies, sets)
        unsolved = {name: preds for name, preds in sets.items() if preds.match is None}
        for name, preds in unsolved.items():
            check_head(self.costs, name, preds)
        found = {name: self._match_at_once(name, preds, targets) for name, preds in unsolved.items()}
        costs = {name: self.own_costs(preds, targets) for name, preds in unsolved.items() if found[name] is None}
        host = copy_to_host([*costs.values(), *map(_sums, sets.values())])
        costs, sums = dict(zip(costs, host, strict=False)), host[len(costs) :]
        skipped = self._nonfinite_images(sets, targets, costs, sums)
        counts = [0 if image in skipped else n for image, n in enumerate(targets.counts)]
        found |= {name: self._solve(name, sets[name], targets, cost, counts) for name, cost in costs.items()}
        pairs = [x[:, ~np.isin(x[1], skipped)] if skipped else x for x in found.values()]
        solved = dict(zip(unsolved, copy_to_device(pairs, targets.labels.device, skipped), strict=True))
        return {name: solved[name] if name in solved else _known(preds.match, skipped) for name, preds in sets.items()}

    @torch.no_grad()
    def cost(self, preds: Predictions, targets: Targets) -> Tensor:
        """Weighted sum of all costs, (R, B, Q, T) float32 whatever autocast says; pairs that may not be matched cost
        1e30. A class-agnostic set knows the label 0 only.
        """
        with torch.autocast(preds.boxes.device.type, enabled=False):
            preds, targets = preds.float(), preds.own_targets(targets)
            total = torch.zeros_like(preds.boxes[..., :1]).repeat(1, 1, 1, targets.labels.shape[1])
            for cost in self.costs:
                total.add_(cost(preds, targets), alpha=cost.weight)
            if preds.valid is not None:
                total.masked_fill_(~preds.valid[None, :, :, None], FORBIDDEN)
            if preds.allowed is not None:
                total.masked_fill_(~preds.allowed[None], FORBIDDEN)
            return total

    @torch.no_grad()
    def own_costs(self, preds: Predictions, targets: Targets) -> Tensor:
        """The cost of each target, of all images after one another, with the queries of its own image: (R, N, Q) for
        N = sum of the counts; otherwise as `cost`.
        """
        image, place = image_and_index(targets.counts)
        own = preds.boxes.new_zeros(preds.boxes.shape[0], len(image), preds.boxes.shape[2], dtype=torch.float32)
        by_pairs = [cost for cost in self.costs if _is_formula_of_pairs(cost)]
        others = [cost for cost in self.costs if not _is_formula_of_pairs(cost)]
        with torch.autocast(preds.boxes.device.type, enabled=False):
            preds, targets = preds.float(), preds.own_targets(targets)
            for pairs, *part in in_parts(preds, targets, image, place) if by_pairs else ():
                for cost in by_pairs:
                    own[tuple(part)].add_(cost.of_pairs(pairs), alpha=cost.weight)
            if others or preds.valid is not None or preds.allowed is not None:
                image, place = torch.from_numpy(np.stack([image, place])).to(own.device, non_blocking=True)
            for cost in others:
                own.add_(cost(preds, targets).transpose(-1, -2)[:, image, place], alpha=cost.weight)
            if preds.valid is not None:
                own.masked_fill_(~preds.valid[image], FORBIDDEN)
            if preds.allowed is not None:
                own.masked_fill_(~preds.allowed.transpose(-1, -2)[image, place], FORBIDDEN)
        return own

    def _nonfinite_images(
        self,
        sets: Mapping[str, Predictions],
        targets: Targets,
        costs: Mapping[str, np.ndarray],
        sums: Sequence[np.ndarray],
    ) -> tuple[int, ...]:
        """The images with a value that is not finite. Raises, or counts and warns, as `on_nonfinite` says."""
        found = set()
        for (name, preds), total in zip(sets.items(), sums, strict=True):
            cost = costs.get(name)
            with np.errstate(all="ignore"):
                finite = np.isfinite(total).all() and (cost is None or np.isfinite(cost.sum(-1)).all())
            if finite:
                continue
            bad = _nonfinite_queries(preds, cost, targets.counts)
            if bad.any():
                where = _first(name, preds, targets, bad)
                if self.on_nonfinite == "raise" or bad[:, list(targets.left_out)].any():
                    raise NonFinitePrediction(
                        f"a prediction or its matching cost is not finite: {where} is the first; lower the learning "
                        "rate, check that image, or look for the first layer whose output is not finite"
                    )
                logger.warning("a prediction is not finite: %s is the first; the image is left out of this step", where)
                found.update(np.unique(np.nonzero(bad)[1]).tolist())
        found.update(targets.left_out)
        if self.on_nonfinite == "skip" and not (targets.restartable and found - set(targets.left_out)):
            log_scalar("skipped_images", len(found))  # once: a step that starts again counts in its last attempt
        return tuple(sorted(found))

    def _match_at_once(self, name: str, preds: Predictions, targets: Targets) -> np.ndarray | None:
        """As `_solve`, where the solver can do without costs of ours: on a CPU."""
        if preds.boxes.device.type != "cpu" or preds.valid is not None or preds.allowed is not None:
            return None
        copies = self._copies(name, preds, targets.counts, preds.boxes.shape[2])
        return self.solver.match(self.costs, preds.float(), preds.own_targets(targets), copies)

    def _copies(self, name: str, preds: Predictions, counts: Sequence[int], usable: int | np.ndarray) -> np.ndarray:
        """(R, B): how many copies each row makes of the targets of each image."""
        rows = copies_of_rows(self.copies, name, len(preds.boxes), preds.groups)
        return bounded(rows, np.array(counts, np.int64), usable)

    def _solve(
        self, name: str, preds: Predictions, targets: Targets, cost: np.ndarray, counts: Sequence[int]
    ) -> np.ndarray:
        """cost (R, N, Q) of all targets -> (4, M): row, image, query, target of every pair of the images with `counts`
        targets to be matched, ordered by row, image and query.
        """
        forbidden = cost >= FORBIDDEN if preds.valid is not None or preds.allowed is not None else None
        padded = preds.valid is not None and preds.allowed is None
        usable = count_usable(~forbidden, targets.counts) if padded else cost.shape[-1]
        copies = self._copies(name, preds, counts, usable)
        if forbidden is not None:
            set_price(cost, forbidden, targets.counts)
        pairs = self.solver.assign_all(cost, targets.counts, copies)
        if forbidden is not None:  # such a pair is left out, even without a choice
            row, image, query, target = pairs
            start = np.cumsum([0, *targets.counts])[image]
            pairs = pairs[:, ~forbidden[row, start + target, query]]
        return pairs


def _is_formula_of_pairs(cost: Cost) -> bool:
    """Whether `of_pairs` says all; a subclass with a `forward` of its own is asked for that."""
    return isinstance(cost, PairCost) and type(cost).forward is PairCost.forward


def _sums(preds: Predictions) -> Tensor:
    """(R, B), finite where all logits and boxes are: sums keep NaN and infinity."""
    total = preds.logits.sum((2, 3), dtype=torch.float32) + preds.boxes.sum((2, 3), dtype=torch.float32)
    return total if preds.iou is None else total + preds.iou.sum(2, dtype=torch.float32)


def _nonfinite_queries(preds: Predictions, own_cost: np.ndarray | None, counts: Sequence[int]) -> np.ndarray:
    """(R, B, Q), True where a logit, a box or a cost of the query is not finite. Called only where there is one, as it
    waits for the device.
    """
    values = [preds.logits, preds.boxes, *([] if preds.iou is None else [preds.iou[..., None]])]
    bad = sum((~torch.isfinite(x)).any(-1) for x in values).bool().cpu().numpy()
    if own_cost is not None:
        rows, targets, queries = np.nonzero(~np.isfinite(own_cost))
        bad[rows, image_and_index(counts)[0][targets], queries] = True
    return bad


def _first(name: str, preds: Predictions, targets: Targets, bad: np.ndarray) -> str:
    row, image, query = (int(x) for x in np.unravel_index(bad.argmax(), bad.shape))
    layer, group = divmod(row, preds.groups)
    group_text = f", group {group}" if preds.groups > 1 else ""
    return f"set '{name}', layer {layer}{group_text}, image {targets.name_of(image)}, query {query}"


def _known(match: Match, skipped: tuple[int, ...]) -> Match:
    """A match that was known beforehand, without the skipped images. Only where there are any does this ask the device
    how many pairs are left.
    """
    if not skipped:
        return match
    kept = torch.isin(match.image, torch.tensor(skipped, device=match.image.device), invert=True)
    weight = None if match.weight is None else match.weight[kept]
    return Match(match.row[kept], match.image[kept], match.query[kept], match.target[kept], weight, skipped)


def copy_to_host(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """All float32 tensors in one copy: the only time in a training step that the host waits for the device."""
    if all(x.device.type == "cpu" for x in tensors):
        return [x.numpy() for x in tensors]
    return in_one_copy(tensors)


def in_one_copy(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """The tensors on the host, joined on the way."""
    flat = torch.cat([x.flatten() for x in tensors]).cpu().numpy()
    parts = np.split(flat, np.cumsum([x.numel() for x in tensors])[:-1])
    return [part.reshape(x.shape) for part, x in zip(parts, tensors, strict=True)]


def copy_to_device(pairs: Sequence[np.ndarray], device: torch.device, skipped: tuple[int, ...]) -> list[Match]:
    """All pairs, (4, M) for each set, in one copy back."""
    if not pairs:
        return []
    indices = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device, non_blocking=True)
    return [Match(*part, skipped=skipped) for part in indices.split([p.shape[1] for p in pairs], dim=1)]
