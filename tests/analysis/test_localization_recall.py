"""oLRP and its threshold: by hand, and against every threshold tried on pycocotools' matching."""

import math

import numpy as np
import pytest

from align_detr.analysis.localization_recall import LocalizationRecallPrecision
from align_detr.analysis.matching import AREAS
from support.results import coco_evaluation, draw_results, with_copies
from support.worked import coco_detections, once, write_results

PARTS = ["olrp", "olrp_localization", "olrp_false_positives", "olrp_false_negatives"]
OBJECTS = [(0, 0, [0, 0, 10, 10]), (0, 0, [100, 0, 10, 10])]
RIGHT, SHIFTED, ELSEWHERE = [0, 0, 10, 10], [100, 0, 10, 8], [50, 50, 10, 10]  # IoU 1, IoU .8, no overlap


def measure(results, copies=None):
    metric = LocalizationRecallPrecision(results)
    copies = once(results) if copies is None else copies
    return metric(copies), metric.thresholds(copies)


def test_worked_example():
    """At .9: 1 TP, 1 FN, error 1/2. At .7: 2 TP of IoU 1 and .8, 1 FP: (1 + .2/.5) / 3 = .4667. At .6: (2 + .4) / 4."""
    found = [(0, 0, 0.9, RIGHT), (0, 0, 0.8, ELSEWHERE), (0, 0, 0.7, SHIFTED), (0, 0, 0.6, ELSEWHERE)]
    values, thresholds = measure(write_results(OBJECTS, found))
    assert values.overall == pytest.approx(
        {"olrp": 1.4 / 3, "olrp_localization": 0.1, "olrp_false_positives": 1 / 3, "olrp_false_negatives": 0}
    )
    assert thresholds.tolist() == [0.7]


def test_detections_of_one_score_stand_together():
    """The right detection of .9 cannot be had without the two wrong ones: (2 + 1) / 4 there, (2 + .4) / 4 at .7."""
    found = [(0, 0, 0.9, RIGHT), (0, 0, 0.9, ELSEWHERE), (0, 0, 0.9, ELSEWHERE), (0, 0, 0.7, SHIFTED)]
    values, thresholds = measure(write_results(OBJECTS, found))
    assert values.overall["olrp"] == pytest.approx(2.4 / 4)
    assert thresholds.tolist() == [0.7]


def test_highest_of_the_best_thresholds():
    """A match of IoU .5 gains nothing: (0 + 1) / 2 at .9, (.5 / .5 + 0) / 2 at .8."""
    objects = [(0, 0, [0, 0, 100, 100]), (0, 0, [200, 0, 100, 100])]
    found = [(0, 0, 0.9, [0, 0, 100, 100]), (0, 0, 0.8, [200, 0, 100, 50])]
    values, thresholds = measure(write_results(objects, found))
    assert values.overall["olrp"] == 0.5
    assert thresholds.tolist() == [0.9]


@pytest.mark.parametrize("found", [[], [(0, 0, 0.9, ELSEWHERE)]], ids=["no detections", "none right"])
def test_no_threshold_where_nothing_is_right(found):
    values, thresholds = measure(write_results(OBJECTS, found))
    assert values.overall["olrp"] == values.overall["olrp_false_negatives"] == 1
    assert math.isnan(values.overall["olrp_localization"]) and math.isnan(values.overall["olrp_false_positives"])
    assert np.isnan(thresholds).all()


def test_classes_without_objects_do_not_count():
    values, thresholds = measure(write_results(OBJECTS, [(0, 0, 0.9, RIGHT), (0, 1, 0.9, RIGHT)], classes=3))
    assert values.overall["olrp"] == 0.5
    np.testing.assert_array_equal(values.per_class["olrp"], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(thresholds, [0.9, np.nan, np.nan])


def try_every_threshold(evaluation, area):
    """Return the parts per class and the thresholds, from pycocotools' matching and the definition."""
    table, thresholds = [], []
    for label in range(len(evaluation.params.catIds)):
        rows, objects = coco_detections(evaluation, label, area)
        best, threshold = (1.0, math.nan, math.nan, 1.0), math.nan
        for score in sorted({row.score for row in rows}, reverse=True):
            kept = [row for row in rows if row.score >= score]
            ious = [row.iou for row in kept if row.state == "right"]
            wrong, missed = sum(row.state == "wrong" for row in kept), objects - len(ious)
            error = (wrong + missed + sum((1 - iou) / 0.5 for iou in ious)) / max(len(ious) + wrong + missed, 1)
            if objects and error < best[0] - 1e-12:
                threshold = score
                best = (error, 1 - sum(ious) / len(ious), wrong / (len(ious) + wrong), missed / objects)
        table.append(best if objects else (math.nan,) * 4)
        thresholds.append(threshold if objects else math.nan)
    return np.array(table), np.array(thresholds)


@pytest.mark.parametrize("tied", [False, True])
def test_is_the_best_of_every_threshold(tied):
    """Crowds, sizes, classes without objects and few detections, also under copies of images."""
    for seed in range(3):
        results = draw_results(seed, images=8, classes=4, objects=60, detections=300, tied=tied, max_detections=7)
        copies = np.random.default_rng(seed).multinomial(8, [1 / 8] * 8)
        for drawn, whole in ((once(results), results), (copies, with_copies(results, copies))):
            evaluation = coco_evaluation(whole)
            for index, area in enumerate(AREAS):
                metric = LocalizationRecallPrecision(results, results.matching_of(area))
                values, (expected, thresholds) = metric(drawn), try_every_threshold(evaluation, index)
                found = np.stack([values.per_class[name] for name in PARTS], axis=1)
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
                np.testing.assert_array_equal(metric.thresholds(drawn), thresholds)
                with np.errstate(all="ignore"):
                    mean = [np.nanmean(column) if (~np.isnan(column)).any() else np.nan for column in expected.T]
                np.testing.assert_allclose([values.overall[name] for name in PARTS], mean, rtol=0, atol=1e-12)
