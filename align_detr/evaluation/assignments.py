"""Which query is matched to which object over a data set, by the matcher that trains the model."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import inference_context
from detectron2.utils import comm
from numpy.typing import NDArray
from torch import Tensor, nn

from align_detr.errors import ConfigError
from align_detr.evaluation.validation_loss import same_random_numbers
from align_detr.modeling.batching import indices_by_size
from align_detr.modeling.losses.quality import alignment_quality, matched_iou
from align_detr.modeling.meta_arch import DETR
from align_detr.modeling.weighting import rank_in_bag
from align_detr.structures import Match, Predictions, Targets

ALPHA = 0.25  # share of the probability in t for a criterion whose weighting names none

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Assignments:
    """The M matched pairs of one prediction set over I images, in columns.

    layer, from 0, group, image, query (within its group) and target (within its image): (M,). Of each pair: iou, the
    overlap of the query's box with its target; score, the probability of the target's class; weight, that of training;
    rank, its place from 0 among the queries of one target in one layer and group, by Align-DETR's quality t, best
    first. `counts` (I,) are the objects of the images, `queries` the most of an image's in a group. `solved` is False
    if the matches are known beforehand, as those of denoising.
    """

    layer: Integers
    group: Integers
    image: Integers
    query: Integers
    target: Integers
    rank: Integers
    iou: Floats
    score: Floats
    weight: Floats
    counts: Integers
    layers: int
    groups: int
    queries: int
    solved: bool

    @property
    def objects(self) -> int:
        """Objects of all images."""
        return int(self.counts.sum())

    @property
    def object(self) -> Integers:
        """Number of each pair's target among the objects of all images, (M,)."""
        return (np.cumsum(self.counts) - self.counts)[self.image] + self.target

    @property
    def place(self) -> Integers:
        """Number of each pair's query among the queries of all groups, (M,)."""
        return self.group * self.queries + self.query

    def of_layer(self, layer: int) -> "Assignments":
        """Return the pairs of one layer."""
        chosen = self.layer == layer
        columns: dict[str, Any] = {name: getattr(self, name)[chosen] for name in COLUMNS}
        return replace(self, **columns)


COLUMNS = ("layer", "group", "image", "query", "target", "rank", "iou", "score", "weight")


def record_assignments(
    model: nn.Module, loader: Iterable[Sequence[Mapping[str, Any]]]
) -> dict[str, Assignments] | None:
    """Return the assignments of every prediction set over the data of `loader`, whose inputs have `instances`; None on
    all but the main process.

    The model predicts without dropout, in evaluation mode, all sets that it has in training: all query groups, the
    denoising queries (with the same random numbers for every batch) and those of a hybrid branch. Images of one size
    are computed together, without padding. Raise ConfigError for a model without decoder or matcher.
    """
    matcher = getattr(getattr(model, "criterion", None), "matcher", None)
    if not isinstance(model, DETR) or matcher is None:
        raise ConfigError(
            f"{type(model).__name__} is no DETR with a matcher, whose assignments could be read: leave them out."
        )
    parts: dict[str, list[Assignments]] = {}
    with inference_context(model), torch.no_grad():
        for inputs in loader:
            for indices in indices_by_size([x["image"] for x in inputs]).values():
                for name, part in assignments_of_batch(model, [inputs[i] for i in indices]).items():
                    parts.setdefault(name, []).append(part)
    gathered = comm.gather(parts, dst=0)
    if not comm.is_main_process():
        return None
    names = dict.fromkeys(name for each in gathered for name in each)
    return {name: joined([part for each in gathered for part in each.get(name, ())]) for name in names}


def assignments_of_batch(model: DETR, inputs: Sequence[Mapping[str, Any]]) -> dict[str, Assignments]:
    """Return the assignments of every prediction set in images of one size."""
    targets = model.targets(inputs)
    with same_random_numbers():
        memory = model.encoder(model.extract_features([model.normalize(x["image"]) for x in inputs]))
        sets = {name: preds.float() for name, preds in model.predict(memory, targets).items()}
    criterion: Any = model.criterion  # to nn.Module every attribute is a tensor or a module
    matches = criterion.matcher(sets, targets)
    return {
        name: _columns(preds, preds.own_targets(targets), matches[name], criterion.weighting)
        for name, preds in sets.items()
    }


def _columns(preds: Predictions, targets: Targets, match: Match, weighting: nn.Module | None) -> Assignments:
    """Return the pairs of a set in columns, on the host."""
    solved = preds.match is None
    if solved and weighting is not None:
        match = weighting(preds, targets, match)
    score, iou = target_probability(preds, targets, match), matched_iou(preds, targets, match, eps=0.0)
    quality = alignment_quality(score, matched_iou(preds, targets, match), getattr(weighting, "alpha", ALPHA))
    images, longest = targets.labels.shape
    bag = (match.row * images + match.image) * longest + match.target
    weight = torch.ones_like(score) if match.weight is None else match.weight
    return Assignments(
        layer=on_host(match.row // preds.groups),
        group=on_host(match.row % preds.groups),
        image=on_host(match.image),
        query=on_host(match.query),
        target=on_host(match.target),
        rank=on_host(rank_in_bag(bag, quality, match.query)),
        iou=on_host(iou),
        score=on_host(score),
        weight=on_host(weight),
        counts=np.array(targets.counts, np.int64),
        layers=len(preds.boxes) // preds.groups,
        groups=preds.groups,
        queries=preds.boxes.shape[2],
        solved=solved,
    )


def target_probability(preds: Predictions, targets: Targets, match: Match) -> Tensor:
    """Return each matched query's probability of its target's class, (M,) float32."""
    logits = match.at(preds.logits).float()
    probability = logits.softmax(-1) if preds.softmax else logits.sigmoid()
    return probability.gather(-1, match.of(targets.labels)[:, None])[:, 0]


def on_host(values: Tensor) -> NDArray[Any]:
    """Return numbers on the host, as int64 or float64."""
    return values.cpu().numpy().astype(np.float64 if values.is_floating_point() else np.int64)


def joined(parts: Sequence[Assignments]) -> Assignments:
    """Return the assignments of several batches as one, whose images are numbered on."""
    starts = np.cumsum([0, *(len(part.counts) for part in parts[:-1])])
    numbered = [replace(part, image=part.image + start) for part, start in zip(parts, starts, strict=True)]
    columns: dict[str, Any] = {name: np.concatenate([getattr(part, name) for part in numbered]) for name in COLUMNS}
    return replace(
        parts[0],
        **columns,
        counts=np.concatenate([part.counts for part in parts]),
        queries=max(part.queries for part in parts),
        groups=max(part.groups for part in parts),
    )
