"""Average precision, and what scores that are the IoU would add to it."""

import numpy as np

from align_detr.analysis.oracle import prepare_oracle
from align_detr.analysis.precision import PrecisionCurves, mean_precision
from align_detr.analysis.results import Results, Values
from align_detr.analysis.tables import Floats, Integers

_OF_AREA = {"APs": "small", "APm": "medium", "APl": "large"}
_AT = {"AP50": 0, "AP75": 5}  # index of the threshold


class AveragePrecision:
    """COCO's AP in percent, equal to pycocotools': `AP`, `AP50`, `AP75`, and `APs`, `APm`, `APl` for ranges of areas.

    `oracle_AP` is the AP where the score of each detection is its IoU with the best object of its class, 0 without one;
    crowds are left out, and equal scores stand in the order of images and entries. `oracle_gap` is oracle_AP - AP. It
    is below 0 for a detector whose scores keep duplicates down, which all have a high IoU. `ceiling_AP` is the AP where
    the best box of each object, one each, has its IoU as the score and all others 0: what no ranking of these boxes
    surpasses by much.
    """

    def __init__(self, results: Results, area: str = "") -> None:
        """Prepare for objects of a range of areas, a key of AREAS; with one, there are no others' APs."""
        self._curves = _prepare(results, area)
        self._oracle, self._ceiling = prepare_oracle(results, area)
        self._of_area = {name: _prepare(results, each) for name, each in _OF_AREA.items() if not area}

    def __call__(self, copies: Integers) -> Values:
        """Return the values for a set that has `copies` (I,) of each image."""
        curves = self._curves(copies)
        named = {"AP": curves, **{name: curves[index : index + 1] for name, index in _AT.items()}}
        named |= {name: of_area(copies) for name, of_area in self._of_area.items()}
        named |= {"oracle_AP": self._oracle(copies), "ceiling_AP": self._ceiling(copies)}
        overall = {name: mean_precision(each) for name, each in named.items()}
        per_class = {name: 100 * each.mean(axis=(0, 2)) for name, each in named.items()}
        overall["oracle_gap"] = overall["oracle_AP"] - overall["AP"]
        per_class["oracle_gap"] = per_class["oracle_AP"] - per_class["AP"]
        return Values(overall, per_class)

    def curves(self, copies: Integers) -> dict[str, Floats]:
        """Return the precision (101,) at COCO's levels of recall, the mean over classes, at IoU .5 and .75."""
        curves = self._curves(copies)
        present = ~np.isnan(curves[0, :, 0])
        if not present.any():
            return {name: np.full(curves.shape[2], np.nan) for name in _AT}
        return {name: curves[index, present].mean(axis=0) for name, index in _AT.items()}


def _prepare(results: Results, area: str) -> PrecisionCurves:
    return PrecisionCurves(results.truth, results.detections, results.matching_of(area))
