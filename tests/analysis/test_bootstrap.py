"""Differences with intervals by a paired bootstrap over images."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from align_detr.analysis.average_precision import AveragePrecision
from align_detr.analysis.bootstrap import Difference, compare, describe
from align_detr.analysis.correlation import ScoreCorrelation
from align_detr.analysis.regressed import BestRegressedRecall
from align_detr.analysis.results import Results, Values
from align_detr.analysis.tables import Integers
from support import slow_metrics
from support.results import coco_evaluation, draw_results, with_copies


class MeanOfImages:
    """The mean of a value per image; NaN where no drawn image has one."""

    def __init__(self, values: list[float]) -> None:
        self._values = np.array(values)

    def __call__(self, copies: Integers) -> Values:
        weight = copies * ~np.isnan(self._values)
        total = np.nansum(weight * np.nan_to_num(self._values))
        return Values({"mean": total / weight.sum() if weight.sum() else float("nan")}, {})


class Three:
    """Three metrics of results."""

    def __init__(self, results: Results) -> None:
        self._metrics = AveragePrecision(results), BestRegressedRecall(results), ScoreCorrelation(results)

    def __call__(self, copies: Integers) -> Values:
        overall = {name: value for metric in self._metrics for name, value in metric(copies).overall.items()}
        return Values({name: overall[name] for name in ("AP", "recall_best_regressed", "pearson")}, {})


def values_anew(results: Results) -> np.ndarray:
    """Return the same of results by pycocotools, plain loops and SciPy."""
    precision = coco_evaluation(results).eval["precision"][..., 0, -1]
    recall = slow_metrics.recall_best_regressed(results, 1)
    pairs = [(match.score, match.iou) for match in slow_metrics.matched(results) if match.area == ""]
    return np.array([100 * precision[precision > -1].mean(), recall, pearsonr(*np.transpose(pairs))[0]])


def test_difference_of_pairs_has_no_noise_where_each_image_differs_alike():
    """Images that differ much from each other, but by .5 between the detectors: paired samples all say .5."""
    values = np.random.default_rng(0).normal(0, 100, 50)
    found = compare(MeanOfImages(values), MeanOfImages(values + 0.5), num_images=50)["mean"]
    assert [found.difference, found.low, found.high] == pytest.approx([0.5, 0.5, 0.5])
    assert found.is_beyond_noise and found.undefined == 0


def test_interval_is_that_of_the_mean():
    """Of 400 differences of standard deviation 1, the mean has the standard error 1 / 20: the interval is about
    1.96 / 20 to each side. 2,000 samples state its ends to about .005.
    """
    differences = np.random.default_rng(0).normal(0, 1, 400)
    differences = (differences - differences.mean()) / differences.std() + 0.03
    zero = MeanOfImages([0] * 400)
    found = compare(zero, MeanOfImages(differences), num_images=400, samples=2000)["mean"]
    assert [found.difference, found.low, found.high] == pytest.approx([0.03, 0.03 - 0.098, 0.03 + 0.098], abs=0.01)
    assert not found.is_beyond_noise


def test_samples_are_sets_of_the_drawn_images():
    """The interval is that of AP, recall and correlation of sets that hold the drawn images, computed anew.

    Their images are drawn as numpy draws from the seed.
    """
    first = draw_results(0, images=9, classes=2, objects=60, detections=250)
    noise = np.random.default_rng(1).normal(0, 0.3, len(first.detections))
    second = Results(first.truth, first.detections.with_scores(first.detections.score + noise)[0])
    draw, number = np.random.default_rng(7), 12
    values = []
    for _ in range(number):
        copies = np.bincount(draw.integers(9, size=9), minlength=9)
        one, other = (values_anew(with_copies(each, copies)) for each in (first, second))
        values.append(other - one)
    found = compare(Three(first), Three(second), num_images=9, samples=number, seed=7)
    assert list(found) == ["AP", "recall_best_regressed", "pearson"]
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    np.testing.assert_allclose([each.low for each in found.values()], low, atol=1e-9)
    np.testing.assert_allclose([each.high for each in found.values()], high, atol=1e-9)
    expected = values_anew(second) - values_anew(first)
    np.testing.assert_allclose([each.difference for each in found.values()], expected, atol=1e-9)


def test_seed_decides():
    metrics = MeanOfImages([1, 2, 3, 4]), MeanOfImages([2, 2, 9, 4])
    again = [compare(*metrics, num_images=4, samples=50, seed=seed) for seed in (3, 3, 4)]
    assert again[0] == again[1] != again[2]


def test_samples_without_a_value_are_counted():
    """One of 4 images has a value. It is in none of a share of (3/4)^4 = .316 of the samples, more than an interval may
    leave out; of 4 in 40 images, (.9)^40 = .015 of the samples have none.
    """
    nan = float("nan")
    found = compare(MeanOfImages([0] * 4), MeanOfImages([1, nan, nan, nan]), num_images=4, samples=1000)["mean"]
    assert found.difference == 1 and np.isnan(found.low) and np.isnan(found.high)
    assert found.undefined == pytest.approx(316, abs=50)
    values = [1, 2, 3, 4, *[nan] * 36]
    found = compare(MeanOfImages([0] * 40), MeanOfImages(values), num_images=40, samples=1000)["mean"]
    assert 0 < found.undefined < 50 and 1 <= found.low < 2.5 < found.high <= 4


def test_single_image_has_no_interval():
    found = compare(MeanOfImages([1]), MeanOfImages([2]), num_images=1)["mean"]
    assert found.difference == 1 and np.isnan(found.low) and not found.is_beyond_noise


@pytest.mark.parametrize(
    ("difference", "images", "sentence"),
    [
        ((0.31, 0.05, 0.58), 5000, "AP of b is 0.31 above that of a (95 % interval 0.05 to 0.58, 5,000 images): more"),
        (
            (-0.31, -0.7, 0.1),
            50,
            "AP of b is 0.31 below that of a (95 % interval -0.7 to 0.1, 50 images): no more than",
        ),
        ((0.0, 0.0, 0.0), 50, "AP of b and a is the same (95 % interval 0 to 0, 50 images): no more than noise."),
        (
            (0.3, 0.1, 0.5),
            5,
            "AP of b is 0.3 above that of a (95 % interval 0.1 to 0.5, 5 images), but these are too few",
        ),
        ((0.3, np.nan, np.nan), 1, "AP of b is 0.3 above that of a; there is no interval, as one image has none."),
        ((0.3, np.nan, np.nan), 50, "AP of b is 0.3 above that of a; there is no interval, as no samples were drawn."),
        ((np.nan, np.nan, np.nan), 50, "AP of b and a cannot be compared: one of them has none."),
    ],
)
def test_sentence_says_whether_a_difference_is_noise(difference, images, sentence):
    assert describe("AP", "b", "a", Difference(*difference, undefined=0), images).startswith(sentence)


def test_sentence_counts_samples_without_a_value():
    difference = Difference(0.3, np.nan, np.nan, undefined=31)
    sentence = "AP of b is 0.3 above that of a; there is no interval, as 31 samples of the 5 images have no value."
    assert describe("AP", "b", "a", difference, 5) == sentence
