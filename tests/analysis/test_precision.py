"""Average precision of columns against pycocotools."""

import numpy as np
import pytest

from align_detr.analysis.matching import AREAS
from align_detr.analysis.precision import PrecisionCurves
from align_detr.analysis.results import Results
from support.results import SIZES, coco_evaluation, draw_copies, draw_results, with_copies


def curves(results: Results, area: str, copies: np.ndarray) -> np.ndarray:
    return PrecisionCurves(results.truth, results.detections, results.matching_of(area))(copies)


def pycocotools_curves(results: Results) -> np.ndarray:
    """Return (T, K, 101, areas), NaN where nothing counts."""
    precision = coco_evaluation(results).eval["precision"][..., -1].transpose(0, 2, 1, 3)
    return np.where(precision < 0, np.nan, precision)


@pytest.mark.parametrize("max_detections", [100, 7])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_precision_is_pycocotools(size, max_detections):
    """Crowds, ties of scores, small and large objects, classes without objects and too many detections."""
    for seed in range(3):
        results = draw_results(seed, **size, tied=seed > 0, max_detections=max_detections)
        expected = pycocotools_curves(results)
        for index, area in enumerate(AREAS):
            found = curves(results, area, np.ones(results.truth.num_images, dtype=np.int64))
            np.testing.assert_allclose(found, expected[..., index], rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", SIZES[1:], ids=str)
def test_copies_of_images_are_a_set_with_these_copies(size):
    for seed in range(3):
        results = draw_results(seed, **size)
        copies = draw_copies(seed, results)
        expected = pycocotools_curves(with_copies(results, copies))
        for index, area in enumerate(AREAS):
            np.testing.assert_allclose(curves(results, area, copies), expected[..., index], rtol=0, atol=1e-12)
