"""AP and the gap to scores that are the IoU: by hand and against pycocotools."""

import numpy as np
import pytest

from align_detr.analysis.average_precision import AveragePrecision
from align_detr.analysis.matching import AREAS
from support import slow_metrics
from support.results import SIZES, coco_evaluation, draw_copies, draw_results, make_results, with_copies


def mean_of(precision: np.ndarray) -> float:
    present = precision[precision > -1]
    return 100 * present.mean() if len(present) else np.nan


def expected_values(results) -> dict[str, dict[str, float]]:
    """Return the values for each range of areas."""
    both = results, slow_metrics.with_true_ious(results)
    precisions = [coco_evaluation(each).eval["precision"][..., -1] for each in both]
    expected = {}
    for index, area in enumerate(AREAS):
        precision, oracle = (each[..., index] for each in precisions)
        expected[area] = {
            "AP": mean_of(precision),
            "AP50": mean_of(precision[0]),
            "AP75": mean_of(precision[5]),
            "oracle_AP": mean_of(oracle),
            "oracle_gap": mean_of(oracle) - mean_of(precision),
        }
    return expected


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_precision_and_oracle_are_pycocotools(size):
    """The oracle's are those of pycocotools on results with IoUs as scores; without ties also under copies."""
    for seed in range(2):
        results = draw_results(seed, **size, tied=seed > 0, max_detections=100 if seed else 7)
        copies = draw_copies(seed, results)
        for drawn in (np.ones_like(copies),) if seed else (np.ones_like(copies), copies):
            whole = AveragePrecision(results)(drawn).overall
            for area, expected in expected_values(with_copies(results, drawn)).items():
                found = AveragePrecision(results, area)(drawn).overall
                np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), atol=1e-9)
                np.testing.assert_allclose(whole[f"AP{area[:1]}"], expected["AP"], atol=1e-9)


def test_classes_have_pycocotools_precision():
    results = draw_results(0, **SIZES[2])
    values = AveragePrecision(results)(np.ones(8, dtype=np.int64)).per_class
    precision = coco_evaluation(results).eval["precision"]
    for label in range(3):
        of_class = precision[:, :, label, :, -1]
        expected = [mean_of(of_class[..., k]) for k in range(4)]
        np.testing.assert_allclose([values[f"AP{size}"][label] for size in ("", "s", "m", "l")], expected, atol=1e-9)


def test_gap_by_hand():
    """One object, 10 wide, and two detections of it, of IoU .5 with the score .9, and of IoU 1 with .1.

    By score, the first is right at the threshold .5 alone, where the precision is 1 at every recall. At the 9 others
    the first is wrong and the second right, and the precision 1/2: AP is (1 + 9 / 2) / 10 = 55 %. By IoU the second
    comes first and is right at every threshold: 100 %.
    """
    results = make_results(
        objects=[(0, 0, (0, 0, 10, 10))], detections=[(0, 0, 0.9, (0, 0, 5, 10)), (0, 0, 0.1, (0, 0, 10, 10))]
    )
    values = AveragePrecision(results)(np.array([1])).overall
    assert [values[name] for name in ("AP", "oracle_AP", "oracle_gap", "ceiling_AP")] == pytest.approx(
        [55, 100, 45, 100]
    )


def test_ceiling_by_hand():
    """Two objects, and four detections in one image: of the first object with IoU 1 and .9, of the second with .6 and
    none.

    With IoUs as scores the duplicate of IoU .9 stands before the box of IoU .6. At the thresholds .5, .55 and .6 the
    precision is 1 up to the recall 1/2 (51 levels of 101) and 2/3 beyond, where 1/2 is reached alone otherwise. With
    perfect scores the duplicate is gone, and the precision is 1 wherever the recall is reached.
    """
    results = make_results(
        objects=[(0, 0, (0, 0, 10, 10)), (0, 0, (50, 0, 10, 10))],
        detections=[
            (0, 0, 0.2, (0, 0, 10, 10)),
            (0, 0, 0.9, (0, 0, 9, 10)),
            (0, 0, 0.8, (50, 0, 6, 10)),
            (0, 0, 0.7, (90, 0, 6, 10)),
        ],
    )
    values = AveragePrecision(results)(np.array([1])).overall
    oracle = (3 * (51 + 50 * 2 / 3) + 7 * 51) / 1010
    assert values["oracle_AP"] == pytest.approx(100 * oracle)
    assert values["ceiling_AP"] == pytest.approx(100 * (3 * 101 + 7 * 51) / 1010)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_ceiling_is_the_recall_of_the_best_boxes(size):
    """Perfect scores stand in the order of the IoU: at each threshold the precision is 1 as far as recall reaches."""
    results = draw_results(3, **size)
    copies = draw_copies(3, results)
    drawn = with_copies(results, copies)
    evaluation = coco_evaluation(slow_metrics.with_perfect_scores(drawn))
    found = AveragePrecision(results)(copies).overall
    np.testing.assert_allclose(found["ceiling_AP"], mean_of(evaluation.eval["precision"][..., 0, -1]), atol=1e-9)


def test_curves_are_means_over_classes_with_objects():
    """At AP50, class "a" has the precision 1 up to the recall 1, class "b" 0, and "c" has no object."""
    box = (0, 0, 10, 10)
    results = make_results(
        objects=[(0, 0, box), (0, 1, (50, 0, 10, 10))],
        detections=[(0, 0, 0.9, (0, 0, 6, 10)), (0, 2, 0.9, box)],
        classes=3,
    )
    curves = AveragePrecision(results).curves(np.array([1]))
    np.testing.assert_allclose([curves["AP50"], curves["AP75"]], [np.full(101, 0.5), np.zeros(101)], atol=1e-15)
