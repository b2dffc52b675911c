"""Duplicates per object: by hand, and against plain loops."""

import numpy as np
import pytest

from align_detr.analysis.duplicates import Duplicates, list_duplicates
from align_detr.analysis.matching import AREAS
from support.results import draw_results, with_copies
from support.worked import once, overlap, write_results

FIRST, SECOND = [0, 0, 10, 10], [100, 0, 10, 10]
EXAMPLE = write_results(
    [(0, 0, FIRST), (0, 0, SECOND), (0, 1, SECOND), (0, 0, [300, 0, 10, 10], True)],
    [
        (0, 0, 0.9, FIRST),
        (0, 0, 0.8, [0, 0, 10, 8]),  # IoU .8 with the first object: a duplicate at .5 and .7
        (0, 0, 0.7, [0, 0, 10, 6]),  # IoU .6: a duplicate at .5
        (0, 0, 0.2, FIRST),  # below the threshold
        (0, 0, 0.9, [300, 0, 10, 10]),  # of a crowd, twice
        (0, 0, 0.9, [300, 0, 10, 10]),
        (0, 1, 0.6, SECOND),  # the first of its object: of the class beside it is another
        (0, 0, 0.6, [100, 0, 10, 4]),  # IoU .4: of no object
    ],
    classes=3,
)
THRESHOLDS = np.array([0.5, 0.1, np.nan])


def test_worked_example():
    """Two duplicates at .5 and one at .7 among three objects, all of the first object."""
    values = Duplicates(EXAMPLE, THRESHOLDS)(once(EXAMPLE))
    assert values.overall == pytest.approx({"duplicates_50": 2 / 3, "duplicates_70": 1 / 3})
    np.testing.assert_array_equal(values.per_class["duplicates_50"], [1, 0, np.nan])
    np.testing.assert_array_equal(values.per_class["duplicates_70"], [0.5, 0, np.nan])


def test_list_of_the_worked_example():
    assert list_duplicates(EXAMPLE, THRESHOLDS) == [
        {
            "image_id": 1,
            "file_name": "1.jpg",
            "class": "class 0",
            "object": FIRST,
            "boxes": [FIRST, [0, 0, 10, 8]],
            "scores": [0.9, 0.8],
        }
    ]
    assert [case["scores"] for case in list_duplicates(EXAMPLE, THRESHOLDS, level=0.5)] == [[0.9, 0.8, 0.7]]
    assert list_duplicates(EXAMPLE, THRESHOLDS, limit=0) == []


def test_list_begins_with_the_most_and_then_the_most_confident():
    objects = [(0, 0, [100 * k, 0, 10, 10]) for k in range(3)]
    scores = [[0.9, 0.3], [0.9, 0.8], [0.5, 0.4, 0.3]]
    found = [(0, 0, score, box) for (_, _, box), each in zip(objects, scores, strict=True) for score in each]
    listed = list_duplicates(write_results(objects, found), np.zeros(1))
    assert [case["scores"] for case in listed] == [scores[2], scores[1], scores[0]]


def test_no_detections():
    values = Duplicates(write_results([(0, 0, FIRST)], []), np.zeros(1))(np.ones(1, dtype=np.int64))
    assert values.overall == {"duplicates_50": 0, "duplicates_70": 0}


def count_plainly(results, thresholds, level, counts):
    """Return duplicates and objects per class."""
    truth, found = results.truth, results.detections
    given, table = {}, np.zeros((2, truth.num_classes))
    for k in range(len(found)):
        if not found.score[k] >= thresholds[found.label[k]]:
            continue
        best, of = 0.0, None
        for g in range(len(truth.objects)):
            same = truth.objects.image[g] == found.image[k] and truth.objects.label[g] == found.label[k]
            iou = overlap(found.box[k], truth.objects.box[g]) if same and not truth.objects.crowd[g] else 0
            best, of = (iou, g) if iou > best else (best, of)
        if best >= level:
            given[of] = given.get(of, 0) + 1
    for g in np.flatnonzero(counts):
        table[:, truth.objects.label[g]] += max(given.get(g, 0) - 1, 0), 1
    return table


def test_is_what_plain_loops_count():
    """Crowds, sizes and a class that nothing passes, also under copies of images."""
    for seed in range(2):
        results = draw_results(seed, images=6, classes=3, objects=30, detections=200, tied=True)
        thresholds = np.array([0.2, 0.5, np.nan])
        copies = np.random.default_rng(seed).multinomial(6, [1 / 6] * 6)
        for drawn, whole in ((once(results), results), (copies, with_copies(results, copies))):
            for area in AREAS:
                values = Duplicates(results, thresholds, results.matching_of(area))(drawn)
                counts = whole.matching_of(area).object_counts
                for name, level in (("duplicates_50", 0.5), ("duplicates_70", 0.7)):
                    extra, objects = count_plainly(whole, thresholds, level, counts)
                    with np.errstate(invalid="ignore"):
                        np.testing.assert_array_equal(values.per_class[name], extra / objects)
                        np.testing.assert_array_equal(values.overall[name], extra.sum() / objects.sum())
