"""OCE: by hand, against plain loops, and against uq-detr."""

import math

import numpy as np
import pytest

from align_detr.analysis.matching import AREAS
from align_detr.analysis.object_calibration import ObjectCalibrationError
from support.results import draw_results, with_copies
from support.worked import corners, once, overlap, write_results

FIRST, SECOND, THIRD = [0, 0, 10, 10], [100, 0, 10, 10], [200, 0, 10, 10]
PART, POOR = [0, 0, 10, 6], [0, 0, 10, 4]  # IoU .6 and .4 with the first object


def measure(results, thresholds=(0.3, 0.3)):
    return ObjectCalibrationError(results, np.array(thresholds))(once(results))


def test_worked_example():
    """At .5: p = (.6, .05), error .4^2 + .05^2 = .1625. At .75: p = (.8, .1), error .05. The second object has none."""
    found = [(0, 0, 0.8, FIRST), (0, 1, 0.1, FIRST), (0, 0, 0.4, PART), (0, 0, 0.9, POOR)]
    unsure = [(0, 0, 0.2, [0, 0, 10, 9]), (0, 1, 0.2, [0, 0, 10, 9])]  # no class of this box reaches its threshold
    objects = [(0, 0, FIRST), (0, 1, SECOND), (0, 0, THIRD, True)]
    values = measure(write_results(objects, found + unsure, classes=2))
    assert values.per_class["oce"].tolist() == pytest.approx([0.10625, 1])
    assert values.overall["oce"] == pytest.approx(0.553125)


def test_a_wrong_class_costs_more_than_no_box():
    """p = (0, .9): 1 + .9^2."""
    assert measure(write_results([(0, 0, FIRST)], [(0, 1, 0.9, FIRST)], classes=2)).overall["oce"] == pytest.approx(
        1.81
    )


def test_a_class_listed_twice_for_a_box_has_its_best_score():
    found = [(0, 0, 0.9, [-0.0, 0, 10, 10]), (0, 0, 0.5, FIRST)]
    assert measure(write_results([(0, 0, FIRST)], found, classes=2)).overall["oce"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("objects", "expected"), [([], math.nan), ([(0, 0, FIRST)], 1)], ids=["no object", "an object"]
)
def test_no_detections(objects, expected):
    assert measure(write_results(objects, [], classes=2)).overall["oce"] == pytest.approx(expected, nan_ok=True)


def vectors(results, image, thresholds):
    """Return the boxes of an image that pass, and their vectors of scores."""
    found, boxes = results.detections, {}
    for k in np.flatnonzero(found.image == image)[::-1]:  # within a class the best score last
        boxes.setdefault(tuple(found.box[k]), [0.0] * results.truth.num_classes)[found.label[k]] = found.score[k]
    return {box: scores for box, scores in boxes.items() if (np.array(scores) >= thresholds).any()}


def error_plainly(results, g, thresholds):
    objects, total = results.truth.objects, 0.0
    boxes = vectors(results, objects.image[g], thresholds)
    for level in (0.5, 0.75):
        near = [scores for box, scores in boxes.items() if overlap(box, objects.box[g]) >= level]
        for k in range(results.truth.num_classes):
            p = sum(scores[k] for scores in near) / max(len(near), 1)
            total += ((k == objects.label[g]) - p) ** 2 / 2
    return total


def draw_shared_boxes(seed):
    """Return results in which two in three detections have the box of another."""
    results = draw_results(seed, images=6, classes=4, objects=30, detections=240)
    found = results.detections
    for image in range(6):
        rows = np.flatnonzero(found.image == image)
        found.box[rows] = np.maximum(found.box[rows[np.arange(len(rows)) // 3]], 1)
    return results


def test_is_what_plain_loops_find():
    """Crowds, sizes and a class that nothing passes, also under copies of images."""
    thresholds = np.array([0.3, 0.5, np.nan, 0.9])
    for seed in range(2):
        results = draw_shared_boxes(seed)
        copies = np.random.default_rng(seed).multinomial(6, [1 / 6] * 6)
        for drawn, whole in ((once(results), results), (copies, with_copies(results, copies))):
            errors = np.array([error_plainly(whole, g, thresholds) for g in range(len(whole.truth.objects))])
            for area in AREAS:
                values = ObjectCalibrationError(results, thresholds, results.matching_of(area))(drawn)
                counts, label = whole.matching_of(area).object_counts, whole.truth.objects.label
                expected = [errors[counts & (label == k)] for k in range(4)]
                expected = [each.mean() if len(each) else math.nan for each in expected]
                np.testing.assert_allclose(values.per_class["oce"], expected, rtol=0, atol=1e-12)
                assert values.overall["oce"] == pytest.approx(errors[counts].mean(), abs=1e-12)


def test_agrees_with_uq_detr():
    uq_detr = pytest.importorskip("uq_detr")
    results = draw_shared_boxes(7)
    objects = results.truth.objects
    objects.crowd[:] = False
    detections, truths = [], []
    for image in range(6):
        boxes, of = vectors(results, image, np.full(4, 0.4)), objects.image == image
        detections.append(uq_detr.Detections(corners(np.array(list(boxes))), np.array(list(boxes.values()))))
        truths.append(uq_detr.GroundTruth(corners(objects.box[of]), objects.label[of]))
    theirs = uq_detr.oce(detections, truths).score
    assert measure(results, [0.4] * 4).overall["oce"] == pytest.approx(theirs, abs=1e-12)
