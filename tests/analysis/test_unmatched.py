"""Confident detections where no object is: by hand, and against plain loops."""

import numpy as np

from align_detr.analysis.unmatched import list_unmatched
from support.results import draw_results
from support.worked import overlap, write_results

BOX, CROWD, FREE = [0, 0, 10, 10], [100, 0, 100, 100], [300, 0, 10, 10]


def test_worked_example():
    found = [
        (0, 0, 0.9, [9, 0, 10, 10]),  # IoU 1/19 with the object of the other class: of none
        (0, 0, 0.8, [8, 0, 10, 10]),  # IoU 2/18: of it
        (0, 0, 0.7, [195, 0, 50, 10]),  # a tenth of it is crowd
        (0, 0, 0.6, [196, 50, 50, 10]),  # less than a tenth of it is
        (0, 1, 0.5, FREE),
        (0, 0, 0.4, [300, 0, 10, 9]),  # in the place of the one before
        (0, 0, 0.3, [300, 0, 10, 4]),  # overlaps it by .4
        (1, 0, 0.3, FREE),  # in another image
        (1, 0, 0.2, BOX),  # below the threshold
        (1, 2, 0.9, BOX),  # of a class without a threshold
    ]
    results = write_results([(0, 1, BOX), (0, 0, CROWD, True)], found, images=2, classes=3)
    listed = list_unmatched(results, np.array([0.3, 0.1, np.nan]))
    assert [(case["image_id"], case["score"], case["box"]) for case in listed] == [
        (1, 0.9, [9, 0, 10, 10]),
        (1, 0.6, [196, 50, 50, 10]),
        (1, 0.5, FREE),
        (1, 0.3, [300, 0, 10, 4]),
        (2, 0.3, FREE),
    ]
    assert listed[2] == {"image_id": 1, "file_name": "1.jpg", "class": "class 1", "score": 0.5, "box": FREE}
    assert list_unmatched(results, np.zeros(3), limit=1) == listed[:1]


def test_no_detections():
    assert list_unmatched(write_results([(0, 0, BOX)], []), np.zeros(1)) == []


def test_is_what_plain_loops_find():
    for seed in range(3):
        results = draw_results(seed, images=4, classes=3, objects=8, detections=120, tied=seed > 0)
        found, objects = results.detections, results.truth.objects
        thresholds, expected = np.array([0.1, 0.4, 0.7]), []
        for k in sorted(range(len(found)), key=lambda k: (-found.score[k], found.entry[k])):
            near = any(
                overlap(found.box[k], objects.box[g], crowd=objects.crowd[g]) >= 0.1
                for g in np.flatnonzero(objects.image == found.image[k])
            )
            shared = any(
                found.image[other] == found.image[k] and overlap(found.box[k], found.box[other]) >= 0.5
                for other in expected
            )
            if found.score[k] >= thresholds[found.label[k]] and not near and not shared:
                expected.append(k)
        assert len(expected) > 3
        assert [case["box"] for case in list_unmatched(results, thresholds)] == found.box[expected].tolist()
