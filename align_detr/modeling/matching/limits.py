"""Limits of a matching: how many queries each target may have, and which pairs are forbidden."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from align_detr.checks import check_count
from align_detr.errors import ConfigError
from align_detr.structures import Predictions

KEY = "model.criterion.matcher.copies"
FORBIDDEN = 1e30  # the cost of a forbidden pair; no other cost comes near it


@dataclass
class Plan:
    """The limits of one set in one step: the copies (R, B) that each row makes of an image's targets, 0 to leave them
    out, and True in `forbidden` (R, N, Q) for each pair of a target and a query that may not be, or None if all may.
    """

    copies: np.ndarray
    forbidden: np.ndarray | None = None

    def exclude(self, cost: np.ndarray, counts: Sequence[int]) -> None:
        """Give the forbidden pairs of cost (R, N, Q), of images with `counts` targets, their price, in place."""
        if self.forbidden is not None:
            set_price(cost, self.forbidden, counts)

    def keep_allowed(self, pairs: np.ndarray, counts: Sequence[int]) -> np.ndarray:
        """Return those of the pairs (4, M) that are allowed; a solver takes others if it has no choice."""
        if self.forbidden is None:
            return pairs
        row, image, query, target = pairs
        start = np.cumsum([0, *counts])[image]
        return pairs[:, ~self.forbidden[row, start + target, query]]


class Limits:
    """What bounds the matching of every set: the numbers of copies, by name of a set, and the pairs that a set forbids.

    A set that brings its own number (`Predictions.copies`) needs none here. Raise ConfigError for copies that are no
    whole numbers of at least 1.
    """

    def __init__(self, copies: Mapping[str, int | Sequence[int]] | None = None) -> None:
        copies = {} if copies is None else copies
        if not isinstance(copies, Mapping):
            raise ConfigError(f"{KEY} is {copies!r}, but must name a set: write {KEY}.main=3, for example.")
        for name, k in copies.items():
            if isinstance(k, Sequence) and not isinstance(k, str):
                for layer, number in enumerate(k):
                    check_count(number, f"{KEY}.{name}[{layer}]")
            else:
                check_count(k, f"{KEY}.{name}")
        self.copies = {name: k if isinstance(k, int) else list(k) for name, k in copies.items()}

    def check(self, sets: Mapping[str, Predictions]) -> None:
        """Raise ConfigError if copies are given for a set that the model does not predict, whose matches are known, or
        that brings another number.
        """
        for name in self.copies:
            if name not in sets:
                raise ConfigError(
                    f"{KEY} names the set '{name}', but the model predicts {', '.join(sets)}: remove it, or name one "
                    "of them."
                )
            if sets[name].match is not None:
                raise ConfigError(f"{KEY} names the set '{name}', whose matches are known beforehand: remove it.")
            if sets[name].assigner is not None:
                raise ConfigError(f"{KEY} names the set '{name}', which an assigner of its own matches: remove it.")
            self.check_brought(name, sets[name].copies)

    def check_brought(self, name: str, brought: int | None) -> None:
        """Raise ConfigError if the set `name` brings a number and another one is given for it, in any layer."""
        k = self.copies.get(name)
        numbers = k if isinstance(k, list) else [brought if k is None else k]
        if brought is not None and any(number != brought for number in numbers):
            raise ConfigError(
                f"{KEY}.{name} is {k}, but model.queries.copies, which holds for the set '{name}', is {brought}: "
                f"remove {KEY}.{name}."
            )

    def plan(
        self,
        name: str,
        preds: Predictions,
        counts: Sequence[int],
        cost: np.ndarray | None = None,
        skipped: Collection[int] = (),
    ) -> Plan:
        """Return the plan of the set `name` for images with `counts` targets, of which those of `skipped` are left out.

        `cost` (R, N, Q) marks forbidden pairs by `FORBIDDEN`; a set whose queries all may be matched needs none.
        """
        usable: int | np.ndarray = preds.boxes.shape[2]
        forbidden = None
        if preds.valid is not None or preds.allowed is not None:
            if cost is None:
                raise ValueError("A set with forbidden pairs is planned from its costs: pass them.")
            forbidden = cost >= FORBIDDEN
            if preds.allowed is None:  # padding queries take no copy; with `allowed` pairs, all queries count
                usable = count_usable(~forbidden, counts)
        wanted = np.array([0 if image in skipped else n for image, n in enumerate(counts)], np.int64)
        return Plan(bound_copies(self.copies_of_rows(name, preds), wanted, usable), forbidden)

    def copies_of_rows(self, name: str, preds: Predictions) -> np.ndarray:
        """Return the copies wanted in each row, (R,); the query groups of a layer share a number. Raise ConfigError
        unless there are as many numbers as layers.
        """
        layers = len(preds.boxes) // preds.groups
        wanted = self.copies.get(name, preds.copies or 1)
        wanted = [wanted] * layers if isinstance(wanted, int) else wanted
        if len(wanted) != layers:
            raise ConfigError(
                f"{KEY} of set '{name}' names {len(wanted)} layers, but the model predicts {layers}: give one number "
                "for each."
            )
        return np.repeat(wanted, preds.groups)


def bound_copies(copies: np.ndarray, counts: np.ndarray, usable: np.ndarray | int) -> np.ndarray:
    """Bound the copies of each image to max(1, min(k, Q // (2 n))), and to 0 if it has no target: copies (R,), counts
    (B,) of targets, usable queries (R, B) or one number -> (R, B).
    """
    bound = np.maximum(1, np.minimum(copies[:, None], usable // np.maximum(1, 2 * counts)))
    return np.where(counts > 0, bound, 0)


def count_usable(allowed: np.ndarray, counts: Sequence[int]) -> np.ndarray:
    """Return how many queries of each image some target of it may have, (R, B): allowed (R, N, Q), whether a target may
    have a query, for the `counts` targets of all images, concatenated.
    """
    ends = np.cumsum(counts)
    per_image = [allowed[:, end - n : end].any(1).sum(-1) for end, n in zip(ends, counts, strict=True)]
    return np.stack(per_image, axis=1)


def set_price(cost: np.ndarray, forbidden: np.ndarray, counts: Sequence[int]) -> None:
    """Set the forbidden pairs of cost (R, N, Q), of images with `counts` targets, to one price above every possible
    total of their row and image, so that a solver takes as few of them as possible.

    The price replaces the cost: if it were added, a target without allowed queries would still prefer some query, and
    could take it from a target that needs it.
    """
    least = cost.min(-1, initial=np.inf)  # (R, N); 1e30 where all are forbidden
    np.copyto(cost, -np.inf, where=forbidden)
    largest = cost.max(-1, initial=-np.inf)  # (R, N); -inf where all are forbidden
    for end, n in zip(np.cumsum(counts), counts, strict=True):
        if n:
            block = slice(end - n, end)  # the image's own targets
            top, bottom = largest[:, block].max(1), least[:, block].min(1)  # (R,)
            above = np.nextafter(top, np.float32(np.inf))  # if 1 is lost beside it
            wide = top.astype(np.float64)  # float32 may end below the price
            price = np.maximum(wide + (wide - bottom) * cost.shape[-1] + 1, above)  # (R,)
            price = np.where(np.isfinite(top), price, FORBIDDEN).clip(max=np.finfo(cost.dtype).max).astype(cost.dtype)
            np.copyto(cost[:, block], price[:, None, None], where=forbidden[:, block])
