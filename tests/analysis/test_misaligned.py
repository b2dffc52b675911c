"""The worst misaligned cases."""

import pytest

from align_detr.analysis.misaligned import list_misaligned
from support.results import draw_results, make_results
from support.slow_metrics import images_of, iou_of


def test_cases_by_hand():
    """Two objects, 10 wide. The first has a confident detection of IoU .4 and a better one of IoU 1: the gap is .6. The
    second has .8 and .9: the gap is .1. The detection of class "b" is of no object.
    """
    results = make_results(
        objects=[(0, 0, (100, 0, 10, 10)), (0, 0, (0, 0, 10, 10))],
        detections=[
            (0, 0, 0.5, (100, 0, 9, 10)),
            (0, 0, 0.9, (0, 0, 4, 10)),
            (0, 0, 0.6, (100, 0, 8, 10)),
            (0, 0, 0.2, (0, 0, 10, 10)),
            (0, 1, 0.3, (0, 0, 10, 10)),
        ],
    )
    worst, second = list_misaligned(results)
    assert worst == {
        "image_id": 1,
        "file_name": "1.jpg",
        "class": "a",
        "object": [0, 0, 10, 10],
        "best": {"box": [0, 0, 10, 10], "score": 0.2, "iou": 1, "rank": 5},
        "confident": {"box": [0, 0, 4, 10], "score": 0.9, "iou": 0.4, "rank": 1},
        "gap": pytest.approx(0.6),
    }
    assert second["gap"] == pytest.approx(0.1) and second["best"]["rank"] == 3
    assert list_misaligned(results, limit=1) == [worst]


def test_what_ranks_as_it_fits_is_no_case():
    """Nor is a detection that overlaps the object by less than .3, or another object more."""
    results = make_results(
        objects=[(0, 0, (0, 0, 10, 10)), (0, 0, (8, 0, 10, 10))],
        detections=[(0, 0, 0.5, (0, 0, 10, 10)), (0, 0, 0.4, (0, 0, 7, 10)), (0, 0, 0.9, (8, 0, 10, 10))],
    )
    assert list_misaligned(results) == []
    results = make_results(
        objects=[(0, 0, (0, 0, 10, 10))], detections=[(0, 0, 0.5, (0, 0, 10, 10)), (0, 0, 0.9, (9.5, 0, 10, 10))]
    )
    assert list_misaligned(results) == []


def test_cases_are_those_of_plain_loops():
    results = draw_results(0, images=8, classes=3, objects=60, detections=400)
    expected = []
    for number, (wanted, found) in enumerate(images_of(results), start=1):
        for one in wanted:
            same = [row for row in found if row.label == one.label and iou_of(row.box, one.box) > 0]
            rivals = [each for each in wanted if each.label == one.label]
            meant = [
                row
                for row in same
                if iou_of(row.box, one.box) >= 0.3 and max(rivals, key=lambda each: iou_of(row.box, each.box)) == one
            ]
            if meant:
                best = max(same, key=lambda row: iou_of(row.box, one.box))
                confident = max(meant, key=lambda row: row.score)
                if best.score < confident.score:
                    expected.append((iou_of(best.box, one.box) - iou_of(confident.box, one.box), number, one.box))
    expected = sorted((each for each in expected if each[0] > 0), reverse=True)
    assert len(expected) > 20
    found = [(case["gap"], case["image_id"], tuple(case["object"])) for case in list_misaligned(results, limit=1000)]
    assert [each[1:] for each in found] == [each[1:] for each in expected]
    assert [each[0] for each in found] == pytest.approx([each[0] for each in expected])
