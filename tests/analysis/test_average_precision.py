"""AP and the gap to a perfect ranking: by hand and against pycocotools."""

import numpy as np
import pytest

from align_detr.analysis.average_precision import AveragePrecision
from align_detr.analysis.matching import AREAS
from support import slow_metrics
from support.results import SIZES, coco_evaluation, draw_copies, draw_results, make_results, with_copies


def mean_of(precision: np.ndarray) -> float:
    present = precision[precision > -1]
    return 100 * present.mean() if len(present) else np.nan


def expected_values(results, area: int) -> dict[str, float]:
    precision, oracle = (
        coco_evaluation(each).eval["precision"][..., area, -1]
        for each in (results, slow_metrics.with_true_ious(results))
    )
    return {
        "AP": mean_of(precision),
        "AP50": mean_of(precision[0]),
        "AP75": mean_of(precision[5]),
        "oracle_AP": mean_of(oracle),
        "oracle_gap": mean_of(oracle) - mean_of(precision),
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_precision_and_oracle_are_pycocotools(size):
    """The oracle's are those of pycocotools on results with IoUs as scores; without ties also under copies."""
    for seed in range(2):
        results = draw_results(seed, **size, tied=seed > 0, max_detections=100 if seed else 7)
        copies = draw_copies(seed, results)
        for drawn in (np.ones_like(copies),) if seed else (np.ones_like(copies), copies):
            expanded = with_copies(results, drawn)
            whole = AveragePrecision(results)(drawn).overall
            for index, area in enumerate(AREAS):
                expected = expected_values(expanded, index)
                found = AveragePrecision(results, area)(drawn).overall
                np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), atol=1e-9)
                name = f"AP{area[:1]}"
                np.testing.assert_allclose(whole[name], expected["AP"], atol=1e-9)


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
    assert [values[name] for name in ("AP", "oracle_AP", "oracle_gap")] == pytest.approx([55, 100, 45])


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
