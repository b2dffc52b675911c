"""Matching of predictions to targets: costs for all rows and images at once, one copy to the host, assignment there,
one copy back.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import numpy as np
import torch
from detectron2.layers import NaiveSyncBatchNorm
from torch import Tensor, nn

from align_detr.checks import check_logits
from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.modeling.events import log_scalar
from align_detr.modeling.matching.costs import (
    Cost,
    FocalCost,
    GIoUCost,
    HighOrderCost,
    L1Cost,
    PairCost,
    PositionModulatedCost,
    SoftmaxCost,
)
from align_detr.modeling.matching.limits import FORBIDDEN, Limits
from align_detr.modeling.matching.pairs import image_and_index, in_parts
from align_detr.modeling.matching.solvers import Solver, solver_of
from align_detr.structures import Match, Predictions, Targets

__all__ = [
    "Cost",
    "FocalCost",
    "GIoUCost",
    "HighOrderCost",
    "HungarianMatcher",
    "L1Cost",
    "PairCost",
    "PositionModulatedCost",
    "SoftmaxCost",
]

KEY = "model.criterion.matcher"

logger = logging.getLogger(__name__)


class HungarianMatcher(nn.Module):
    """Matcher that finds the cheapest assignment of targets to queries in every row and image (DETR, equation 1).

    `costs` are summed with their weights. `copies[set]` repeats each target: one number for all rows, or one per
    decoder layer, shared by its query groups (Align-DETR, section 3.4); a set may bring its own number
    (`Predictions.copies`), or an assigner of its own (`Predictions.assigner`), which then decides alone. It is bounded
    in each image to max(1, min(k, Q // (2 n))) for n targets and Q queries, so that copies take at most half of the
    queries, the order of the images plays no part, and every image keeps its matches. Padding queries do not count in
    Q; all do if the set says which pairs are `allowed`. Of more targets than queries the costliest stay unmatched.

    `on_nonfinite` is for an image with a NaN or infinite prediction, in any set, or cost. With "raise",
    NonFinitePrediction names set, layer, image and query. With "skip" the image is left out of the step: it has no pair
    in any set, is named in `Match.skipped`, which criterion and detector obey, and is counted as `skipped_images` in
    detectron2's event storage and in a warning. Images in `Targets.left_out` are skipped from the start. If one of them
    still gives a non-finite value, the weights are at fault, not the image: NonFinitePrediction is raised.

    `solver` is "scipy", "numba", or "auto" (`matching/solvers.py`): numba if it is installed, several times as fast, in
    as many threads as PyTorch takes. Of equally cheap assignments the two may find different ones.
    """

    costs: Sequence[Cost]

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
            raise ConfigError(f'{KEY}.on_nonfinite is "{on_nonfinite}": set it to "raise" or "skip".')
        if not costs:
            raise ConfigError(f"{KEY}.costs is empty: give the matcher at least one cost.")
        self.costs = cast("Sequence[Cost]", nn.ModuleList(costs))  # for torch, a list of any modules
        self.limits = Limits(copies)
        self.on_nonfinite = on_nonfinite
        self._solver: Solver | None = None if solver == "auto" else solver_of(solver)

    @property
    def solver(self) -> Solver:
        """The solver; "auto" is settled at the first use, as prediction can do without the import of numba."""
        if self._solver is None:
            self._solver = solver_of("auto")
        return self._solver

    def check_model(self, model: nn.Module) -> None:
        """Raise ConfigError for batch norm over processes if this process may compute a step again: it would wait for
        the others forever.
        """
        norms = (nn.SyncBatchNorm, NaiveSyncBatchNorm)
        if self.on_nonfinite == "skip" and any(isinstance(x, norms) for x in model.modules()):
            raise ConfigError(
                f'{KEY}.on_nonfinite is "skip", which does not go together with batch norm over processes: set '
                'model.backbone.norm to "FrozenBN", or on_nonfinite to "raise".'
            )

    @property
    def copies(self) -> dict[str, int | list[int]]:
        """The copies per set, as configured; `limits` holds them."""
        return self.limits.copies

    @torch.no_grad()
    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """Return a match for every set; sets that know theirs keep it."""
        # Check: settings against the sets, by their names and shapes.
        self.limits.check(sets)
        unsolved = {name: preds for name, preds in sets.items() if preds.match is None}
        for name, preds in unsolved.items():
            for cost in self._costs_of(preds):
                check_logits(cost, name, preds)

        # Cost: (R, N, Q) on the device, for the sets that the solver cannot match without.
        solved = self._match_at_once(unsolved, targets)
        own_costs = {name: self.own_costs(preds, targets) for name, preds in unsolved.items() if name not in solved}

        # Copy: the one time that the host waits for the device; with the costs goes a sum per image, (R, B), of each
        # set's predictions, which tells whether they are finite.
        host = copy_to_host([*own_costs.values(), *map(finite_sums, sets.values())])
        host_costs = dict(zip(own_costs, host, strict=False))
        sums = dict(zip(sets, host[len(own_costs) :], strict=True))

        # Exclude: images with a value that is not finite.
        skipped = self._nonfinite_images(sets, targets, host_costs, sums)

        # Solve: (4, M) of row, image, query and target.
        for name, host_cost in host_costs.items():
            solved[name] = self._solve(name, sets[name], targets.counts, host_cost, skipped)

        # Copy back: the pairs of all sets at once.
        pairs_of_sets = [without_images(solved[name], skipped) for name in unsolved]
        matches = dict(zip(unsolved, copy_to_device(pairs_of_sets, targets.labels.device, skipped), strict=True))
        return {
            name: matches[name] if preds.match is None else without_skipped(preds.match, skipped)
            for name, preds in sets.items()
        }

    @torch.no_grad()
    def own_costs(self, preds: Predictions, targets: Targets) -> Tensor:
        """Return the weighted sum of all costs of each target with the queries of its own image: (R, N, Q) float32,
        whatever autocast says, for the N targets of all images, concatenated.

        Pairs that may not be matched cost 1e30. A class-agnostic set knows the label 0 only.
        """
        image, index = image_and_index(targets.counts)  # (N,) each
        total = preds.boxes.new_zeros(preds.boxes.shape[0], len(image), preds.boxes.shape[2], dtype=torch.float32)
        costs = self._costs_of(preds)
        of_pairs = [cost for cost in costs if isinstance(cost, PairCost) and not cost.overrides_forward()]
        others = [cost for cost in costs if cost not in of_pairs]
        with torch.autocast(preds.boxes.device.type, enabled=False):
            preds, targets = preds.float(), preds.own_targets(targets)
            for pairs, *part in in_parts(preds, targets, image, index) if of_pairs else ():
                for cost in of_pairs:
                    total[tuple(part)].add_(cost.of_pairs(pairs), alpha=cost.weight)  # (r, n, Q) of (R, N, Q)
            if others or preds.valid is not None or preds.allowed is not None:
                image, index = torch.from_numpy(np.stack([image, index])).to(total.device, non_blocking=True)
            for other in others:  # (R, B, Q, T) -> (R, N, Q)
                total.add_(other(preds, targets).transpose(-1, -2)[:, image, index], alpha=other.weight)
            if preds.valid is not None:  # (B, Q) -> (N, Q)
                total.masked_fill_(~preds.valid[image], FORBIDDEN)
            if preds.allowed is not None:  # (B, Q, T) -> (N, Q)
                total.masked_fill_(~preds.allowed.transpose(-1, -2)[image, index], FORBIDDEN)
        return total

    def _costs_of(self, preds: Predictions) -> Sequence[Cost]:
        """Return the terms of a set's cost: the matcher's, or those of the set's assigner."""
        return self.costs if preds.assigner is None else preds.assigner.costs

    def _solve(
        self, name: str, preds: Predictions, counts: Sequence[int], cost: np.ndarray, skipped: Collection[int]
    ) -> np.ndarray:
        """Return the pairs (4, M) of the set `name` from its cost (R, N, Q), which changes."""
        if preds.assigner is not None:
            return preds.assigner.assign_all(cost, counts, skipped)
        plan = self.limits.plan(name, preds, counts, cost, skipped)
        plan.exclude(cost, counts)
        return plan.keep_allowed(self.solver.assign_all(cost, counts, plan.copies), counts)

    def _match_at_once(self, unsolved: Mapping[str, Predictions], targets: Targets) -> dict[str, np.ndarray]:
        """Return the pairs (4, M) of the sets that the solver matches without a cost matrix: on a CPU, all pairs being
        allowed, which keeps the costs in its cache.
        """
        solved = {}
        for name, preds in unsolved.items():
            plain = preds.valid is None and preds.allowed is None and preds.assigner is None
            if plain and preds.boxes.device.type == "cpu":
                copies = self.limits.plan(name, preds, targets.counts).copies
                pairs = self.solver.match(self.costs, preds.float(), preds.own_targets(targets), copies)
                if pairs is not None:
                    solved[name] = pairs
        return solved

    def _nonfinite_images(
        self,
        sets: Mapping[str, Predictions],
        targets: Targets,
        costs: Mapping[str, np.ndarray],
        sums: Mapping[str, np.ndarray],
    ) -> tuple[int, ...]:
        """Return the images with a value that is not finite, and those left out already. Raise, or count and warn, as
        `on_nonfinite` says: costs (R, N, Q) of some sets, sums (R, B) of all.
        """
        found: set[int] = set()
        for name, preds in sets.items():
            cost = costs.get(name)
            with np.errstate(all="ignore"):  # a sum of finite costs may overflow
                finite = np.isfinite(sums[name]).all() and (cost is None or np.isfinite(cost.sum(-1)).all())
            if finite:
                continue
            bad = nonfinite_queries(preds, cost, targets.counts)  # (R, B, Q)
            if bad.any():
                where = describe_first(bad, name, preds, targets)
                if self.on_nonfinite == "raise" or bad[:, list(targets.left_out)].any():
                    raise NonFinitePrediction(
                        f"A prediction or its matching cost is not finite: {where} is the first; lower the learning "
                        "rate, check that image, or look for the first layer whose output is not finite."
                    )
                logger.warning("A prediction is not finite: %s is the first; this step leaves the image out.", where)
                found.update(np.unique(np.nonzero(bad)[1]).tolist())
        found.update(targets.left_out)
        if self.on_nonfinite == "skip" and not (targets.restartable and found - set(targets.left_out)):
            log_scalar("skipped_images", len(found))  # once: a step that starts again counts in its last attempt
        return tuple(sorted(found))


def finite_sums(preds: Predictions) -> Tensor:
    """Return a number per row and image, (R, B), finite if all its logits and boxes are: a sum keeps NaN and
    infinity.
    """
    total = preds.logits.sum((2, 3), dtype=torch.float32) + preds.boxes.sum((2, 3), dtype=torch.float32)
    return total if preds.iou is None else total + preds.iou.sum(2, dtype=torch.float32)


def nonfinite_queries(preds: Predictions, own_cost: np.ndarray | None, counts: Sequence[int]) -> np.ndarray:
    """Return True for each query with a logit, a box or a cost that is not finite, (R, B, Q). Called only if there is
    one, as it waits for the device.
    """
    bad = ~torch.isfinite(preds.logits).all(-1) | ~torch.isfinite(preds.boxes).all(-1)
    if preds.iou is not None:
        bad |= ~torch.isfinite(preds.iou)
    on_host = bad.cpu().numpy()
    if own_cost is not None:
        rows, targets, queries = np.nonzero(~np.isfinite(own_cost))
        on_host[rows, image_and_index(counts)[0][targets], queries] = True
    return on_host


def describe_first(bad: np.ndarray, name: str, preds: Predictions, targets: Targets) -> str:
    """Return the words for the first query of `bad` (R, B, Q): set, layer, group, image and query."""
    row, image, query = (int(x) for x in np.unravel_index(bad.argmax(), bad.shape))
    layer, group = divmod(row, preds.groups)
    group_text = f", group {group}" if preds.groups > 1 else ""
    return f"set '{name}', layer {layer}{group_text}, image {targets.name_of(image)}, query {query}"


def without_images(pairs: np.ndarray, images: Collection[int]) -> np.ndarray:
    """Return the pairs (4, M) of all other images."""
    return pairs[:, ~np.isin(pairs[1], list(images))] if images else pairs


def without_skipped(match: Match, skipped: tuple[int, ...]) -> Match:
    """Return a known match without the skipped images. Only if there are any, this asks the device how many pairs are
    left.
    """
    if not skipped:
        return match
    kept = torch.isin(match.image, torch.tensor(skipped, device=match.image.device), invert=True)
    weight = None if match.weight is None else match.weight[kept]
    return Match(match.row[kept], match.image[kept], match.query[kept], match.target[kept], weight, skipped)


def copy_to_host(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Copy all float32 tensors at once: the only time in a training step that the host waits for the device."""
    if all(x.device.type == "cpu" for x in tensors):
        return [x.numpy() for x in tensors]
    return in_one_copy(tensors)


def in_one_copy(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Return the tensors on the host, concatenated on the way."""
    flat = torch.cat([x.flatten() for x in tensors]).cpu().numpy()
    parts = np.split(flat, np.cumsum([x.numel() for x in tensors])[:-1])
    return [part.reshape(x.shape) for part, x in zip(parts, tensors, strict=True)]


def copy_to_device(pairs: Sequence[np.ndarray], device: torch.device, skipped: tuple[int, ...]) -> list[Match]:
    """Return the match of each set from its pairs (4, M), in one copy to the device."""
    if not pairs:
        return []
    indices = torch.from_numpy(np.concatenate(pairs, axis=1)).to(device, non_blocking=True)
    parts = (part.unbind() for part in indices.split([p.shape[1] for p in pairs], dim=1))
    return [Match(row, image, query, target, skipped=skipped) for row, image, query, target in parts]
