"""Correlation of the score and the IoU of matched samples."""

import numpy as np

from align_detr.analysis.matching import Matching
from align_detr.analysis.results import Results, Values
from align_detr.analysis.tables import Floats, Integers

EDGES: Floats = np.linspace(0.0, 1.0, 21)
"""Edges of the bins of scores and of IoUs in the density; 1 belongs to the last bin."""


class ScoreCorrelation:
    """Pearson's and Spearman's correlation of score and IoU over the true positives of COCO's matching at IoU .5.

    Spearman's is Pearson's of the ranks; equal values have the mean of their ranks. NaN stands for fewer than two
    samples, and where all scores or all IoUs are equal.
    """

    def __init__(self, results: Results, matching: Matching | None = None) -> None:
        """Prepare for a matching whose first threshold is .5: `results.matching`, or that of a range of areas."""
        found = results.detections
        pairs = (results.matching if matching is None else matching).at[0].true_positives()
        self._score, self._iou = found.score[pairs.detection], pairs.iou
        self._image, self._label = found.image[pairs.detection], found.label[pairs.detection]
        self._num_classes = results.truth.num_classes
        together = np.zeros(len(self._label), dtype=np.int64)
        self._groupings = {"overall": _Ranked(self._score, self._iou, together, 1)}
        self._groupings["per class"] = _Ranked(self._score, self._iou, self._label, self._num_classes)

    def __call__(self, copies: Integers) -> Values:
        """Return `pearson` and `spearman` for a set that has `copies` (I,) of each image."""
        drawn = copies[self._image].astype(np.float64)
        overall, per_class = (ranked(drawn) for ranked in self._groupings.values())
        return Values({name: float(values[0]) for name, values in overall.items()}, per_class)

    def density(self) -> Integers:
        """Return the numbers of samples per bin of the score and bin of the IoU, between EDGES."""
        return np.histogram2d(self._score, self._iou, (EDGES, EDGES))[0].astype(np.int64)


class _Ranked:
    """Samples in groups, sorted by each of two values once."""

    def __init__(self, x: Floats, y: Floats, group: Integers, num_groups: int) -> None:
        self._columns = x, y
        self._group, self._num_groups = group, num_groups
        self._orders = _Order(x, group), _Order(y, group)

    def __call__(self, weight: Floats) -> dict[str, Floats]:
        """Return both correlations per group, under a weight per sample."""
        first, second = self._orders
        varies = first.varies(weight, self._num_groups) & second.varies(weight, self._num_groups)
        pearson = self._correlate(*self._columns, weight)
        spearman = self._correlate(first.ranks(weight), second.ranks(weight), weight)
        return {"pearson": np.where(varies, pearson, np.nan), "spearman": np.where(varies, spearman, np.nan)}

    def _correlate(self, x: Floats, y: Floats, weight: Floats) -> Floats:
        total = np.maximum(self._sum(weight), 1)
        x, y = (each - (self._sum(weight * each) / total)[self._group] for each in (x, y))
        spread = np.sqrt(self._sum(weight * x * x) * self._sum(weight * y * y))
        return self._sum(weight * x * y) / np.where(spread > 0, spread, 1)

    def _sum(self, values: Floats) -> Floats:
        return np.bincount(self._group, values, self._num_groups).astype(np.float64, copy=False)


class _Order:
    """The order of the samples by group and value, with the runs of equal ones."""

    def __init__(self, values: Floats, group: Integers) -> None:
        self._order = np.lexsort((values, group))
        value, group = values[self._order], group[self._order]
        begins = np.ones(len(value), dtype=bool)
        begins[1:] = (group[1:] != group[:-1]) | (value[1:] != value[:-1])
        self._starts = np.flatnonzero(begins)
        self._run = np.empty(len(value), dtype=np.int64)
        self._run[self._order] = np.cumsum(begins) - 1
        self._group = group[self._starts]  # of each run
        self._first = np.searchsorted(self._group, self._group)  # of each run, the first of its group

    def ranks(self, weight: Floats) -> Floats:
        """Return the rank of each sample in its group, the mean of the ranks of equal ones."""
        in_run = self._sums(weight)
        before = np.cumsum(in_run) - in_run
        return (before - before[self._first] + (in_run + 1) / 2)[self._run]

    def varies(self, weight: Floats, num_groups: int) -> np.ndarray:
        """Return whether a group has samples of different values."""
        return np.bincount(self._group, self._sums(weight) > 0, num_groups) > 1

    def _sums(self, weight: Floats) -> Floats:
        return np.add.reduceat(weight[self._order], self._starts) if len(self._starts) else weight
