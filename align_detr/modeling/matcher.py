"""Matching of predictions to targets: costs for all rows and images at once, one copy to the host, assignment there,
one copy back.
"""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.modeling.assignment import assign
from align_detr.modeling.costs import (
    Cost,
    FocalCost,
    GIoUCost,
    L1Cost,
    PositionModulatedCost,
    SoftmaxCost,
    cached_chunks,
    places,
)
from align_detr.structures import Match, Predictions, Targets

__all__ = [
    "Cost",
    "FocalCost",
    "GIoUCost",
    "HungarianMatcher",
    "L1Cost",
    "PositionModulatedCost",
    "SoftmaxCost",
]

FORBIDDEN = 1e6  # what a pair that may not be matched costs more; no sum of the costs here comes near half of it

logger = logging.getLogger(__name__)


class HungarianMatcher(nn.Module):
    """The cheapest assignment of targets to queries in every row and image (DETR, equation 1).

    `costs` are summed with their weights. `copies[set]` repeats each target: a number for all rows, or one a decoder
    layer, which its query groups share (Align-DETR, section 3.4); it is bounded image by image to
    max(1, min(k, Q // (2 n))) for n targets, so that at most half of the queries are taken by copies, the order of the
    images plays no part, and no image goes without matches. More targets than queries leave the costliest unmatched.

    `on_nonfinite`, for an image with a prediction, of any set, or a cost that is NaN or infinite: "raise" raises
    NonFinitePrediction with set, layer, image and query; "skip" leaves the image out of the step. It then has no pair
    in any set, is named in `Match.skipped`, which the criterion obeys, and is counted as `skipped_images` in
    detectron2's event storage and in a warning.
    """

    def __init__(
        self,
        *,
        costs: Sequence[Cost],
        copies: Mapping[str, int | Sequence[int]] | None = None,
        on_nonfinite: str = "raise",
    ) -> None:
        super().__init__()
        if on_nonfinite not in ("raise", "skip"):
            raise ConfigError(f'matcher.on_nonfinite is "{on_nonfinite}", but only "raise" and "skip" are known')
        if not costs:
            raise ConfigError("matcher.costs is empty: a matcher needs at least one cost")
        self.costs = nn.ModuleList(costs)
        self.copies = {name: k if isinstance(k, int) else list(k) for name, k in (copies or {}).items()}
        self.on_nonfinite = on_nonfinite

    @torch.no_grad()
    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """A match for every set; sets that know theirs keep it."""
        _check_names(self.copies, sets)
        unsolved = {name: preds for name, preds in sets.items() if preds.match is None}
        costs = {name: self.own_costs(preds, targets) for name, preds in unsolved.items()}
        probes = [_probe(preds, costs.get(name), targets.counts) for name, preds in sets.items()]
        host = copy_to_host([*costs.values(), *probes])
        skipped = self._nonfinite_images(sets, targets, host[len(costs) :])
        counts = [0 if image in skipped else n for image, n in enumerate(targets.counts)]
        pairs = [
            self._solve(name, preds, cost, targets.counts, counts)
            for (name, preds), cost in zip(unsolved.items(), host, strict=False)
        ]
        solved = dict(zip(unsolved, copy_to_device(pairs, targets.labels.device, skipped), strict=True))
        return {name: solved[name] if name in solved else _known(preds.match, skipped) for name, preds in sets.items()}

    @torch.no_grad()
    def cost(self, preds: Predictions, targets: Targets) -> Tensor:
        """Weighted sum of all costs, (R, B, Q, T) float32 whatever autocast says; pairs that may not be matched cost
        1e6 more. A class-agnostic set knows the label 0 only.
        """
        with torch.autocast(preds.boxes.device.type, enabled=False):
            preds, targets = preds.float(), preds.own_targets(targets)
            first, *others = self.costs
            total = first(preds, targets) * first.weight
            for cost in others:
                total = total.add_(cost(preds, targets), alpha=cost.weight)
            if preds.valid is not None:
                total = total + FORBIDDEN * (~preds.valid)[None, :, :, None]
            if preds.allowed is not None:
                total = total + FORBIDDEN * (~preds.allowed)[None]
            return total

    def own_costs(self, preds: Predictions, targets: Targets) -> Tensor:
        """The cost of each target, of all images after one another, with the queries of its own image: (R, N, Q) for
        N = sum of the counts.
        """
        # what counts on a CPU is its cache, on a device the number of kernels
        return self._in_cache(preds, targets) if preds.boxes.device.type == "cpu" else self._at_once(preds, targets)

    def _in_cache(self, preds: Predictions, targets: Targets) -> Tensor:
        own = preds.boxes.new_empty(
            preds.boxes.shape[0], sum(targets.counts), preds.boxes.shape[2], dtype=torch.float32
        )
        for part, truth, row, target in cached_chunks(preds, targets):
            own[row, target] = self.cost(part, truth)[:, 0].transpose(-1, -2)
        return own

    def _at_once(self, preds: Predictions, targets: Targets) -> Tensor:
        index = torch.from_numpy(np.stack(places(targets.counts))).to(preds.boxes.device, non_blocking=True)
        return self.cost(preds, targets).transpose(-1, -2)[:, index[0], index[1]]

    def _nonfinite_images(
        self, sets: Mapping[str, Predictions], targets: Targets, probes: Sequence[np.ndarray]
    ) -> tuple[int, ...]:
        """The images with a value that is not finite. Raises, or counts and warns, as `on_nonfinite` says."""
        found = set()
        for (name, preds), probe in zip(sets.items(), probes, strict=True):
            bad = ~np.isfinite(probe)
            if bad.any():
                where = _first(name, preds, targets, bad)
                if self.on_nonfinite == "raise":
                    raise NonFinitePrediction(
                        f"a prediction or its matching cost is not finite: {where} is the first; lower the learning "
                        "rate, check that image, or look for the first layer whose output is not finite"
                    )
                logger.warning("a prediction is not finite: %s is the first; the image is left out of this step", where)
                found.update(np.unique(np.nonzero(bad)[1]).tolist())
        if self.on_nonfinite == "skip":
            _log_scalar("skipped_images", len(found))
        return tuple(sorted(found))

    def _solve(
        self, name: str, preds: Predictions, cost: np.ndarray, widths: Sequence[int], counts: Sequence[int]
    ) -> np.ndarray:
        """cost (R, N, Q), `widths` of its images -> (4, M): row, image, query, target of every pair of the images with
        `counts` targets to be matched, ordered by row, image and query.
        """
        num_rows, _, num_queries = cost.shape
        copies = self.copies.get(name, 1)
        copies = [copies] * (num_rows // preds.groups) if isinstance(copies, int) else copies
        if len(copies) * preds.groups != num_rows:
            raise ConfigError(
                f"matcher.copies of set '{name}' names {len(copies)} layers, but the model predicts "
                f"{num_rows // preds.groups}: give one number for each"
            )
        starts = np.cumsum([0, *widths])
        restricted = preds.valid is not None or preds.allowed is not None
        found, lengths = [], np.zeros((num_rows, len(counts)), np.int64)
        for row in range(num_rows):
            for image, n in enumerate(counts):
                if n:
                    block = cost[row, starts[image] : starts[image] + n]
                    query, target = assign(block, max(1, min(copies[row // preds.groups], num_queries // (2 * n))))
                    if restricted:  # a forbidden pair is left out, even where nothing else was free
                        kept = block[target, query] < FORBIDDEN / 2
                        query, target = query[kept], target[kept]
                    found.append((query, target))
                    lengths[row, image] = len(query)
        place = np.repeat(np.stack(np.divmod(np.arange(lengths.size), max(1, len(counts)))), lengths.ravel(), axis=1)
        return np.concatenate([place, np.concatenate([np.empty((2, 0), np.int64), *map(np.stack, found)], axis=1)])


def _check_names(copies: Mapping[str, object], sets: Mapping[str, Predictions]) -> None:
    for name in copies:
        if name not in sets:
            raise ConfigError(f"matcher.copies names the set '{name}', but the model predicts {', '.join(sets)}")


def _probe(preds: Predictions, own_cost: Tensor | None, counts: Sequence[int]) -> Tensor:
    """(R, B, Q), finite where the query's logits, box and costs are: sums, as those keep NaN and infinity."""
    probe = preds.logits.float().sum(-1) + preds.boxes.float().sum(-1)
    if preds.iou is not None:
        probe = probe + preds.iou
    if own_cost is not None:
        image = torch.from_numpy(places(counts)[0]).to(probe.device, non_blocking=True)
        probe = probe.index_add(1, image, own_cost)
    return probe


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


def _log_scalar(name: str, value: float) -> None:
    try:
        storage = get_event_storage()
    except (AssertionError, IndexError):  # outside of a training loop there is none
        return
    storage.put_scalar(name, value, smoothing_hint=False)


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
