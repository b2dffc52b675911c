"""Correlation of score and IoU: by hand and against SciPy on pycocotools' matches."""

import warnings

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from align_detr.analysis.correlation import EDGES, ScoreCorrelation
from align_detr.analysis.matching import AREAS
from support import slow_metrics
from support.results import SIZES, draw_copies, draw_results, make_results, with_copies


def correlations(results, copies, area=""):
    return ScoreCorrelation(results, results.matching_of(area))(copies)


def scipys(matches: list[slow_metrics.Match]) -> list[float]:
    if len(matches) < 2:
        return [np.nan, np.nan]
    scores, ious = [match.score for match in matches], [match.iou for match in matches]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant scores, which give NaN
        return [pearsonr(scores, ious)[0], spearmanr(scores, ious)[0]]


@pytest.fixture
def three_matched():
    """Three objects, far apart and 10 wide, with detections of IoU .6, .8 and 1, and one that matches none."""
    boxes = [(0, 0, 6, 10), (100, 0, 8, 10), (200, 0, 10, 10), (50, 0, 10, 10)]
    return make_results(
        objects=[(0, 0, (x, 0, 10, 10)) for x in (0, 100, 200)],
        detections=[(0, 0, score, box) for score, box in zip((0.3, 0.6, 0.7, 0.99), boxes, strict=True)],
    )


def test_correlation_by_hand(three_matched):
    """Scores .3, .6, .7 and IoUs .6, .8, 1.

    Deviations of the scores: -.7 / 3, .2 / 3, .5 / 3, with squares (.49 + .04 + .25) / 9 = .78 / 9; of the IoUs -.2, 0,
    .2, with squares .08. Products: (.14 + .1) / 3 = .08. Pearson: .08 / sqrt(.78 / 9 * .08) = .9608. The order is the
    same, so that Spearman's is 1.
    """
    values = correlations(three_matched, np.array([1])).overall
    assert values["pearson"] == pytest.approx(0.08 / (0.78 / 9 * 0.08) ** 0.5)
    assert values["spearman"] == pytest.approx(1)


def test_density_by_hand(three_matched):
    """Scores .3, .6, .7 and IoUs .6, .8, 1 in bins .05 wide, found from the middle of each bin."""
    density = ScoreCorrelation(three_matched).density()
    assert density.sum() == 3
    for score, iou in [(0.3, 0.6), (0.6, 0.8), (0.7, 1)]:
        row, column = np.searchsorted(EDGES, [score, min(iou, 0.99)], side="right") - 1
        assert density[row, column] == 1


def test_equal_scores_have_no_correlation():
    """Of equal numbers with rounding errors in their mean, too."""
    results = make_results(
        objects=[(0, 0, (x, 0, 10, 10)) for x in (0, 100, 200)],
        detections=[(0, 0, 0.1, (x, 0, 10 - x / 100, 10)) for x in (0, 100, 200)],
    )
    values = correlations(results, np.array([1])).overall
    assert np.isnan(values["pearson"]) and np.isnan(values["spearman"])


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_correlation_is_scipys_of_pycocotools_matches(size):
    for seed in range(2):
        results = draw_results(seed, **size, tied=seed > 0)
        copies = draw_copies(seed, results)
        for drawn in (np.ones_like(copies), copies):
            matches = slow_metrics.matched(with_copies(results, drawn))
            for area in AREAS:
                found = list(correlations(results, drawn, area).overall.values())
                expected = scipys([match for match in matches if match.area == area])
                np.testing.assert_allclose(found, expected, atol=1e-9)
            per_class = correlations(results, drawn).per_class
            for label in range(results.truth.num_classes):
                found = [values[label] for values in per_class.values()]
                expected = scipys([match for match in matches if match.area == "" and match.label == label])
                np.testing.assert_allclose(found, expected, atol=1e-9)
