"""LaECE_0 and its recalibration: by hand, against plain loops, and against uq-detr where the definitions agree."""

import math
import sys
from collections import Counter

import numpy as np
import pytest

from align_detr.analysis.calibration import CalibrationError, confident_samples, recalibrate
from align_detr.analysis.matching import AREAS
from align_detr.errors import EnvironmentProblem
from support.results import draw_results, with_copies
from support.worked import corners, once, overlap, write_results

FIRST, SECOND, THIRD = [0, 0, 10, 10], [100, 0, 10, 10], [200, 0, 10, 10]
ELSEWHERE = [50, 50, 10, 10]


def test_worked_example():
    """Bin (.76, .8] has .8 and .78 of quality .6 and 0, bin (.48, .52] has .5 of quality 1: (2 |.79 - .3| + .5) / 3."""
    found = [(0, 0, 0.8, [0, 0, 10, 6]), (0, 0, 0.78, ELSEWHERE), (0, 0, 0.5, SECOND), (0, 0, 0.3, THIRD)]
    results = write_results([(0, 0, FIRST), (0, 0, SECOND), (0, 0, THIRD)], found, classes=2)
    metric = CalibrationError(results, np.array([0.5, np.nan]))
    values = metric(once(results))
    assert values.overall["lace"] == pytest.approx((2 * 0.49 + 0.5) / 3)
    assert math.isnan(values.per_class["lace"][1])
    reliability = metric.reliability()
    assert reliability["count"].tolist() == [0] * 12 + [1] + [0] * 6 + [2] + [0] * 5
    assert reliability["confidence"][[12, 19]].tolist() == pytest.approx([0.5, 0.79])
    assert reliability["quality"][[12, 19]].tolist() == pytest.approx([1, 0.3])


def test_worked_recalibration():
    """The image of position 1 has quality 0 at .2 and 1 at .8; position 0 takes its map: .2 -> 0, .5 -> .5, .9 -> 1."""
    objects = [(0, 0, FIRST), (0, 0, SECOND), (1, 0, FIRST)]
    found = [(0, 0, 0.9, FIRST), (0, 0, 0.5, SECOND), (0, 0, 0.2, ELSEWHERE), (1, 0, 0.8, FIRST)]
    results = write_results(objects, [*found, (1, 0, 0.2, ELSEWHERE)], images=2)
    samples = confident_samples(results, np.zeros(1))
    assert recalibrate(samples)[samples.image == 0].tolist() == pytest.approx([1, 0.5, 0])
    assert recalibrate(samples)[samples.image == 1].tolist() == pytest.approx([1, 0])  # their map: 0 at .2, 1 from .5
    metric = CalibrationError(results, np.zeros(1))
    assert metric(np.array([0, 1])).overall["lace_recalibrated"] == pytest.approx(0)
    assert metric(np.array([1, 0])).overall["lace_recalibrated"] == pytest.approx(0.5 / 3)


def test_a_class_in_one_half_alone_keeps_its_scores():
    results = write_results([(0, 0, FIRST)], [(0, 0, 0.9, FIRST)], images=2)
    values = CalibrationError(results, np.zeros(1))(once(results))
    assert values.overall == pytest.approx({"lace": 0.1, "lace_recalibrated": 0.1})


def test_boxes_that_do_not_touch_are_no_match():
    """The wrong detection of .9 takes no object from the right one of .8."""
    results = write_results([(0, 0, FIRST)], [(0, 0, 0.9, ELSEWHERE), (0, 0, 0.8, FIRST)])
    assert confident_samples(results, np.zeros(1)).quality.tolist() == [0, 1]


def test_a_crowd_leaves_out_what_it_covers_at_least_half():
    found = [(0, 0, 0.9, [0, 0, 10, 10]), (0, 0, 0.8, [0, 50, 10, 100]), (0, 0, 0.7, [0, 60, 10, 100])]
    results = write_results([(0, 0, [0, 0, 100, 100], True)], found)
    assert confident_samples(results, np.zeros(1)).score.tolist() == [0.7]


def test_no_detections():
    results = write_results([(0, 0, FIRST)], [])
    metric = CalibrationError(results, np.zeros(1))
    assert all(math.isnan(value) for value in metric(once(results)).overall.values())
    assert metric.reliability()["count"].sum() == 0


def test_without_scikit_learn_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.isotonic", None)
    results = write_results([(0, 0, FIRST)], [(0, 0, 0.9, FIRST)])
    with pytest.raises(EnvironmentProblem, match=r"^Scores are recalibrated with scikit-learn, .*: pip install"):
        CalibrationError(results, np.zeros(1))


def match_plainly(results, thresholds, area):
    """Return (class, score, quality) of the detections that count."""
    found, objects, (low, high) = results.detections, results.truth.objects, AREAS[area]
    taken, rows, taking_part = set(), [], Counter()
    for k in range(len(found)):  # by class and falling score
        of = found.image[k], found.label[k]
        taking_part[of] += 1
        if taking_part[of] > results.max_detections or not found.score[k] >= thresholds[of[1]]:
            continue
        free = []
        for g in np.flatnonzero((objects.image == of[0]) & (objects.label == of[1])):
            iou, crowd = overlap(found.box[k], objects.box[g], crowd=objects.crowd[g]), objects.crowd[g]
            if g not in taken and (iou >= 0.5 if crowd else iou > 0):
                free.append((not crowd and low <= objects.area[g] <= high, iou, g))
        counts, iou, g = max(free, default=(None, 0, None))
        if g is not None and not objects.crowd[g]:
            taken.add(g)
        if counts or (g is None and low <= found.box[k, 2] * found.box[k, 3] <= high):
            rows.append((of[1], found.score[k], iou))
    return rows


def error_plainly(rows, label):
    """Return LaECE_0 of a class, bin by bin."""
    mine = [(score, quality) for of, score, quality in rows if of == label]
    total = 0.0
    for b in range(25):
        inside = [pair for pair in mine if (b / 25 < pair[0] or b == 0) and pair[0] <= (b + 1) / 25]
        if inside:
            confidence, quality = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            total += len(inside) / len(mine) * abs(confidence - quality)
    return total if mine else math.nan


def test_is_what_plain_loops_find():
    """Crowds, ties, sizes, few detections and a class that nothing passes, also under copies of images."""
    thresholds = np.array([0.2, 0.4, np.nan])
    for seed in range(2):
        results = draw_results(seed, images=6, classes=3, objects=30, detections=150, tied=seed > 0, max_detections=12)
        copies = np.random.default_rng(seed).multinomial(6, [1 / 6] * 6)
        for drawn, whole in ((once(results), results), (copies, with_copies(results, copies))):
            for area in AREAS:
                values = CalibrationError(results, thresholds, area)(drawn)
                rows = match_plainly(whole, thresholds, area)
                expected = [error_plainly(rows, label) for label in range(3)]
                np.testing.assert_allclose(values.per_class["lace"], expected, rtol=0, atol=1e-12)


def test_recalibration_is_the_best_rising_map_of_the_other_half():
    """Against the min-max formula of isotonic regression, with straight lines between the fitted scores."""
    results = draw_results(3, images=12, classes=2, objects=50, detections=160)
    samples = confident_samples(results, np.zeros(2))
    mapped = recalibrate(samples)
    for label in range(2):
        for half in range(2):
            other = (samples.label == label) & (samples.image % 2 != half)
            order = np.argsort(samples.score[other])
            x, y = samples.score[other][order], samples.quality[other][order]
            fitted = [
                max(min(y[i : j + 1].mean() for j in range(k, len(y))) for i in range(k + 1)) for k in range(len(y))
            ]
            own = (samples.label == label) & (samples.image % 2 == half)
            np.testing.assert_allclose(mapped[own], np.interp(samples.score[own], x, fitted), rtol=0, atol=1e-9)


def test_agrees_with_uq_detr():
    """Where the scores of each class reach 0 and 1, so that its bins, which cover their range, are ours."""
    uq_detr = pytest.importorskip("uq_detr")
    results = draw_results(5, images=6, classes=3, objects=40, detections=300)
    objects, found = results.truth.objects, results.detections
    objects.crowd[:], found.box[:, 2:] = False, np.maximum(found.box[:, 2:], 1)
    for label in range(3):
        rows = np.flatnonzero(found.label == label)
        found.score[rows[0]], found.score[rows[-1]] = 1, 0
    detections, truths = [], []
    for image in range(6):
        at, of = found.image == image, objects.image == image
        detections.append(uq_detr.Detections(corners(found.box[at]), found.score[at], found.label[at]))
        truths.append(uq_detr.GroundTruth(corners(objects.box[of]), objects.label[of]))
    theirs = uq_detr.laece(detections, truths, tp_criterion="greedy", iou_threshold=1e-12)
    ours = CalibrationError(results, np.zeros(3))(once(results)).overall["lace"]
    assert ours == pytest.approx(theirs.score, abs=1e-12)
