"""Results of one detector beside their ground truth, and what every metric of them is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from align_detr.analysis.matching import Matching, match
from align_detr.analysis.overlaps import Overlaps, find_overlaps
from align_detr.analysis.tables import Detections, Floats, Integers, Truth


@dataclass(frozen=True)
class Results:
    """Detections of one detector, with the ground truth and the `max_detections` of an image and class that count."""

    truth: Truth
    detections: Detections
    max_detections: int = 100

    @cached_property
    def overlaps(self) -> Overlaps:
        """Overlaps of all images, of whatever classes."""
        return find_overlaps(self.truth, self.detections)

    @cached_property
    def matching(self) -> Matching:
        """Matching with objects of all areas at COCO's thresholds."""
        return self.matching_of("")

    def matching_of(self, area: str) -> Matching:
        """Return the matching for a range of areas, a key of AREAS."""
        return match(self.truth, self.detections, self.overlaps, area=area, max_detections=self.max_detections)


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
