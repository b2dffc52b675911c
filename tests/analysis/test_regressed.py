"""Recall of best-regressed samples: by hand and against plain loops."""

import numpy as np
import pytest

from align_detr.analysis import samples
from align_detr.analysis.matching import AREAS
from align_detr.analysis.regressed import IOU_EDGES, MULTIPLES, BestRegressedRecall, iou_histograms
from align_detr.analysis.results import Results
from support import slow_metrics
from support.results import SIZES, draw_copies, draw_results, make_results, with_copies

NAMES = {k: "recall_best_regressed" + ("" if k == 1 else f"_{k}N") for k in MULTIPLES}


def recalls(results: Results, copies: np.ndarray, area: str = ""):
    return BestRegressedRecall(results, results.matching_of(area))(copies)


@pytest.fixture
def two_objects() -> Results:
    """One image with a cat at x 0 to 10 and a dog at 20 to 30, N = 2, and four detections as high as they.

    | entry | class | x        | score | IoU with the object of its class |
    |---|---|---|---|---|
    | 0     | cat   | 0 to 8   | .9    | 8 / 10 = .8 |
    | 1     | cat   | 0 to 10  | .5    | 1: the cat's best-regressed sample, third of the image |
    | 2     | dog   | 20 to 29 | .7    | .9: the dog's, second of the image |
    | 3     | cat   | 20 to 30 | .1    | 0, but 1 with the dog |
    """
    return make_results(
        objects=[(0, 0, (0, 0, 10, 10)), (0, 1, (20, 0, 10, 10))],
        detections=[
            (0, 0, 0.9, (0, 0, 8, 10)),
            (0, 0, 0.5, (0, 0, 10, 10)),
            (0, 1, 0.7, (20, 0, 9, 10)),
            (0, 0, 0.1, (20, 0, 10, 10)),
        ],
    )


def test_recall_by_hand(two_objects):
    """Among the 2 most confident is the dog's sample, not the cat's; among 4 both. Of any class, neither of the best
    boxes, third and fourth, is among the first two.
    """
    values = recalls(two_objects, np.array([1]))
    assert values.overall["recall_best_regressed"] == 0.5
    assert values.overall["recall_best_regressed_2N"] == 1
    assert values.overall["recall_best_regressed_any_class"] == 0
    assert values.per_class["recall_best_regressed"].tolist() == [0, 1]


def test_histograms_by_hand(two_objects):
    """Best-regressed: IoUs 1 and .9. Most confident: .8 and .9. Bins are .05 wide; the last holds .95 to 1."""
    shares = iou_histograms(two_objects)
    expected = np.zeros((2, 20))
    expected[0, [18, 19]] = expected[1, [16, 18]] = 0.5
    np.testing.assert_array_equal([shares["best_regressed"], shares["most_confident"]], expected)


def test_detections_of_one_box_are_one_sample_of_any_class():
    """Three classes of one box push the second box out of the N = 2 most confident detections, but not boxes."""
    results = make_results(
        objects=[(0, 0, (0, 0, 10, 10)), (0, 1, (20, 0, 10, 10))],
        detections=[(0, k, 0.9 - k / 10, (0, 0, 10, 10)) for k in range(3)] + [(0, 1, 0.1, (20, 0, 10, 10))],
        classes=3,
    )
    values = recalls(results, np.array([1])).overall
    assert values["recall_best_regressed"] == 0.5 and values["recall_best_regressed_any_class"] == 1


def test_of_samples_that_fit_alike_the_more_confident_is_best_regressed():
    box = (0, 0, 10, 10)
    results = make_results(objects=[(0, 0, box)], detections=[(0, 0, 0.2, box), (0, 0, 0.9, box)])
    assert recalls(results, np.array([1])).overall["recall_best_regressed"] == 1


def test_object_without_a_sample_is_not_recalled_and_crowds_are_no_objects():
    box = (0, 0, 10, 10)
    results = make_results(
        objects=[(0, 0, box), (0, 0, (50, 50, 9, 9)), (0, 0, (0, 0, 90, 90), True)], detections=[(0, 0, 0.9, box)]
    )
    assert recalls(results, np.array([1])).overall["recall_best_regressed_10N"] == 0.5


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_recall_is_that_of_plain_loops(size):
    """In the whole set, per class and per range of areas, with ties, and with copies of images."""
    for seed in range(2):
        results = draw_results(seed, **size, tied=seed > 0)
        copies = draw_copies(seed, results)
        for drawn in (np.ones_like(copies), copies):
            expanded = with_copies(results, drawn)
            for area in AREAS:
                values = recalls(results, drawn, area)
                for multiple, name in NAMES.items():
                    expected = slow_metrics.recall_best_regressed(expanded, multiple, area)
                    np.testing.assert_allclose(values.overall[name], expected)
                expected = slow_metrics.recall_of_any_class(expanded, area)
                np.testing.assert_allclose(values.overall["recall_best_regressed_any_class"], expected)
            for label in range(results.truth.num_classes):
                values = recalls(results, drawn)
                expected = slow_metrics.recall_best_regressed(expanded, 2, label=label)
                np.testing.assert_allclose(values.per_class["recall_best_regressed_2N"][label], expected)
                expected = slow_metrics.recall_of_any_class(expanded, label=label)
                np.testing.assert_allclose(values.per_class["recall_best_regressed_any_class"][label], expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_histograms_are_those_of_plain_loops(size):
    results = draw_results(0, **size)
    shares = iou_histograms(results)
    for name, ious in zip(shares, slow_metrics.sampled_ious(results), strict=True):
        expected = np.histogram(ious, IOU_EDGES)[0] / (len(ious) or np.nan)
        np.testing.assert_allclose(shares[name], expected)


def test_boxes_are_told_apart_whatever_numbers_they_are_mixed_to(monkeypatch):
    """Also if all are mixed to one number; -0.0 is 0.0, and the same box of another image another one."""
    boxes = [(0.0, 0, 1, 1), (0, 0, 1, 2), (-0.0, 0, 1, 1), (0, 0, 1, 1)]
    results = make_results(
        objects=[], detections=[(k // 3, 0, 1 - k / 9, box) for k, box in enumerate(boxes)], images=2
    )
    assert results.detections.entry.tolist() == [0, 1, 2, 3]
    found = [samples.same_boxes(results.detections.image, results.detections.box)]
    monkeypatch.setattr(samples, "_mixed", lambda columns: np.zeros(len(columns[0]), dtype=np.uint64))
    found.append(samples.same_boxes(results.detections.image, results.detections.box))
    for number in found:
        assert number[0] == number[2] and len({*number.tolist()}) == 3
