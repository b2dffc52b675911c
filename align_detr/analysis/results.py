"""Results of one detector beside their ground truth, and what every metric of them is."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, wraps
from typing import Protocol, TypeVar, cast

import numpy as np

from align_detr.analysis.matching import Matching, match
from align_detr.analysis.overlaps import Overlaps, find_overlaps
from align_detr.analysis.tables import Detections, Floats, Integers, Truth

T = TypeVar("T")


@dataclass(frozen=True)
class Results:
    """Detections of one detector, with the ground truth and the `max_detections` of an image and class that count."""

    truth: Truth
    detections: Detections
    max_detections: int = 100

    @property
    def each_once(self) -> Integers:
        """One copy of each image (I,): the set as it is."""
        return np.ones(self.truth.num_images, dtype=np.int64)

    @cached_property
    def overlaps(self) -> Overlaps:
        """Overlaps of all images, of whatever classes."""
        return find_overlaps(self.truth, self.detections)

    @cached_property
    def class_overlaps(self) -> Overlaps:
        """Overlaps of detections with objects of their class; crowds are left out."""
        found, objects, pairs = self.detections, self.truth.objects, self.overlaps
        same = found.label[pairs.detection] == objects.label[pairs.object]
        return pairs.select(same & ~objects.crowd[pairs.object])

    @cached_property
    def by_confidence(self) -> Integers:
        """Indices of the detections (D,), sorted by image, falling score and entry."""
        found = self.detections
        return np.lexsort((found.entry, -found.score, found.image))

    @cached_property
    def rank_in_image(self) -> Integers:
        """How many detections of its image, of whatever class, come before each (D,)."""
        order, rank = self.by_confidence, np.empty(len(self.detections), dtype=np.int64)
        image = self.detections.image[order]
        rank[order] = np.arange(len(order)) - np.searchsorted(image, image)
        return rank

    @cached_property
    def matching(self) -> Matching:
        """Matching with objects of all areas at COCO's thresholds."""
        return self.matching_of("")

    def matching_of(self, area: str) -> Matching:
        """Return the matching for a range of areas, a key of AREAS; it is computed once."""
        return self.once(area, lambda: self._match(area))

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """Return what `compute` returns; it is called once per key."""
        if key not in self._computed:
            self._computed[key] = compute()
        return cast(T, self._computed[key])

    @cached_property
    def _computed(self) -> dict[object, object]:
        return {}

    def _match(self, area: str) -> Matching:
        return match(self.truth, self.detections, self.overlaps, area=area, max_detections=self.max_detections)


def computed_once(function: Callable[[Results], T]) -> Callable[[Results], T]:
    """Return a function of results that is computed once for each."""

    @wraps(function)
    def of_results(results: Results) -> T:
        return results.once(function, lambda: function(results))

    return of_results


@dataclass(frozen=True)
class Values:
    """Values of metrics by name: `overall`, and `per_class` (K,). NaN stands where nothing is to be measured."""

    overall: dict[str, float]
    per_class: dict[str, Floats]


class Metric(Protocol):
    """Metrics of results that were sorted and matched beforehand, so that a call costs milliseconds."""

    def __call__(self, copies: Integers) -> Values:
        """Return the values for a set that has `copies` (I,) of each image."""
        ...


def mean_over_classes(values: Floats) -> float:
    """Return the mean of a value per class (K,) over the classes that have one; NaN if none has."""
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else float("nan")


def ratio(numerator: Floats | Integers, denominator: Floats | Integers) -> Floats:
    """Return the ratio, NaN where the denominator is 0."""
    divisor = np.where(denominator == 0, np.nan, denominator)
    return np.asarray(numerator / divisor, dtype=np.float64)
