"""Numbers of a training's assignments: positives, ranks, matching instability, and how queries share the objects."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_detr.evaluation.assignments import Assignments
from align_detr.structures import MAIN


def describe_assignments(sets: Mapping[str, Assignments], *, learned: bool) -> dict[str, Any]:
    """Return plain numbers of each prediction set, by its name, ready for JSON; None stands where nothing counts.

    `images`, `objects`, `groups` and `queries` of a group, and `layers`, a list with a dictionary per layer: see
    `describe_layer`. Of sets that the matcher solves, `instability` is a list with one entry per pair of successive
    layers, see `instability`. `main` has `query_use` of its last layer, and `queries_are_learned`: only then does an
    index mean the same query in every image. Queries of proposals are numbered by the rank of their proposal.
    """
    return {name: _describe_set(each, learned if name == MAIN else None) for name, each in sets.items()}


def _describe_set(pairs: Assignments, learned: bool | None) -> dict[str, Any]:
    layers = [pairs.of_layer(k) for k in range(pairs.layers)]
    numbers: dict[str, Any] = {
        "images": len(pairs.counts),
        "objects": pairs.objects,
        "groups": pairs.groups,
        "queries": pairs.queries,
        "layers": [describe_layer(one) for one in layers],
    }
    if pairs.solved:
        numbers["instability"] = [instability(one, after) for one, after in pairwise(layers)]
    if learned is not None:
        numbers["queries_are_learned"] = learned
        numbers["query_use"] = query_use(layers[-1])
    return numbers


def describe_layer(pairs: Assignments) -> dict[str, Any]:
    """Return the numbers of one layer's pairs.

    positives_per_object: pairs per object, over all groups. unmatched: share of objects without a query. iou, score:
    means over the pairs. ranks: of known matches [], of solved ones a list with a dictionary per rank 0, 1, ...:
    `share` of the pairs that have this rank, and the means of their `weight`, `iou` and `score`.
    """
    objects = pairs.objects
    matched = len(np.unique(pairs.object))
    return {
        "positives_per_object": len(pairs.query) / objects if objects else None,
        "unmatched": 1 - matched / objects if objects else None,
        "iou": mean(pairs.iou),
        "score": mean(pairs.score),
        "ranks": _ranks(pairs) if pairs.solved else [],
    }


def _ranks(pairs: Assignments) -> list[dict[str, float | None]]:
    table = []
    for rank in range(int(pairs.rank.max(initial=-1)) + 1):
        chosen = pairs.rank == rank
        means = {name: mean(getattr(pairs, name)[chosen]) for name in ("weight", "iou", "score")}
        table.append({"share": mean(chosen), **means})
    return table


def instability(first: Assignments, second: Assignments) -> dict[str, float | None]:
    """Return how much the assignments of one layer differ from those of another: of the next layer, or of the same
    layer of another checkpoint, on the same images.

    objects: 1 - |A and B| / min(|A|, |B|) for the queries A and B that an object has in the two, 1 if only one of them
    is empty, as a mean over the objects with a query in either. One-to-one, this is the share of objects whose query
    changes; with more positives in one layer than in the other, only changed queries count, not their number.
    queries_per_image: queries whose object, or lack of one, changes, per image. One-to-one, this is the instability IS
    of DN-DETR (Li et al. 2022): an object that changes its query counts twice. Raise ValueError if the
    images have other objects.
    """
    if not np.array_equal(first.counts, second.counts):
        raise ValueError("The two assignments are of different images: record them over the same data.")
    both, objects = (first, second), first.objects
    places = max(x.groups * x.queries for x in both)
    one, other = (x.object * places + x.place for x in both)
    common = np.bincount(np.intersect1d(one, other) // places, minlength=objects)
    of_one, of_other = (np.bincount(x.object, minlength=objects) for x in both)
    change = 1 - common / np.minimum(of_one, of_other).clip(min=1)
    queries, images = np.unique(np.concatenate([x.image * places + x.place for x in both])), len(first.counts)
    return {
        "objects": mean(change[of_one + of_other > 0]),
        "queries_per_image": (len(queries) - int(common.sum())) / images if images else None,
    }


def instability_of_layers(first: Assignments, second: Assignments) -> list[dict[str, float | None]]:
    """Return `instability` between two checkpoints of one model, for each layer."""
    if first.layers != second.layers:
        raise ValueError(f"The checkpoints have {first.layers} and {second.layers} layers: compare those of one model.")
    return [instability(first.of_layer(k), second.of_layer(k)) for k in range(first.layers)]


def query_use(pairs: Assignments) -> dict[str, Any]:
    """Return how one layer's M pairs are spread over the N queries of all groups.

    matches: the pairs of each query, (N,). used: share of the queries with a pair. entropy: that of the shares of
    pairs, divided by ln(min(M, N)), the most that M pairs can have: 1 if no query could have fewer, 0 if one query has
    them all.
    """
    matches = np.bincount(pairs.place, minlength=pairs.groups * pairs.queries)
    total, most = int(matches.sum()), min(int(matches.sum()), len(matches))
    shares = matches[matches > 0] / max(total, 1)
    entropy = float(-(shares * np.log(shares)).sum() / math.log(most)) if most > 1 else None
    return {"matches": matches.tolist(), "used": mean(matches > 0), "entropy": entropy}


def mean(values: NDArray[Any]) -> float | None:
    """Return the mean of some numbers, or None for none."""
    return float(np.mean(values)) if len(values) else None
