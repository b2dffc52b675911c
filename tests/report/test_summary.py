"""The sentences of the summary, of numbers written by hand."""

import re
from typing import Any

from align_detr.report.summary import advice, findings
from support.report import make_report

NUMBERS = {
    "AP": 50.04,
    "AP50": 80.0,
    "AP75": 55.0,
    "oracle_gap": 11.46,
    "ceiling_AP": 61.5,
    "recall_best_regressed": 0.452,
    "pearson": 0.5,
    "error_loc": 8.5,
    "error_cls": 2.0,
    "lace": 0.12,
    "lace_recalibrated": 0.04,
    "duplicates_70": 0.07,
}


def of(*detectors: dict[str, Any]) -> dict[str, Any]:
    report = make_report([f"D{k}" for k in range(len(detectors))], cases=2)
    for made, numbers in zip(report["detectors"], detectors, strict=True):
        made["overall"], made["thresholds"] = numbers, [0.2, None, 0.4]
    return report


def test_one_detector() -> None:
    assert findings(of(NUMBERS)) == [
        "D0 has AP 50.0 on 72 images with 945 objects of 3 classes (AP50 80.0, AP75 55.0).",
        "With perfect scores (the IoU for the best box of each object, 0 for all others) the same boxes would have "
        "AP 61.5 instead of 50.0.",
        "The best box of an object is among the N most confident of its image, which has N objects, for "
        "45.2\N{NO-BREAK SPACE}% of the objects.",
        "Pearson's correlation of score and IoU of matched detections, at best 1, is 0.50.",
        "The costliest error is “box” with 8.5 of AP50.",
    ]
    assert [re.findall(r"\d+\.\d+|\b\d+\b", sentence) for sentence in advice(of(NUMBERS))] == [
        ["0.30"],
        ["11.5"],
        ["12.0", "4.0"],
        ["7", "100", "5"],
        ["2"],
    ]


def test_several_detectors_share_a_sentence() -> None:
    report = of(NUMBERS, {**NUMBERS, "AP": 51.0, "oracle_gap": -0.3, "duplicates_70": 0.0}, {**NUMBERS, "AP": None})
    metrics = {
        "AP": {"difference": 1.0, "low": 0.2, "high": 1.8},
        "AP75": {"difference": 5.0, "low": 1.0, "high": 9.0},
        "recall_best_regressed": {"difference": 0.05, "low": 0.01, "high": 0.09},
        "pearson": {"difference": 0.25, "low": 0.1, "high": 0.5},
        "oracle_gap": {"difference": 0.25, "low": -0.1, "high": 0.5},
        "olrp": {"difference": -0.104, "low": -0.2, "high": -0.01},
        "lace": {"difference": None, "low": None, "high": None},
    }
    difference = {"of": "D1", "over": "D0", "images": 72, "metrics": metrics, "sentence": "D1 is more than noise."}
    report["differences"] = [difference, {**difference, "of": "D2", "images": 19}]
    found = findings(report)
    assert found[:4] == [
        "D1 has the highest AP, 51.0, on 72 images with 945 objects of 3 classes; D0 50.0.",
        "D1 is more than noise.",
        "D1 and D0 also differ by more than noise in AP75 (+5.00), best-regressed recall at N (+5.0), Pearson (+0.250) "
        "and oLRP (−10.4).",
        "D1 is more than noise.",
    ]
    assert found[4].endswith("AP 61.5 instead of 50.0 (D0) and AP 61.5 instead of 51.0 (D1).")
    to_do = advice(report)
    assert any("by 11.5 (D0) and 11.5 (D2) of AP" in sentence for sentence in to_do)
    assert any("the JSON lists 2 (D0), 2 (D1) and 2 (D2)." in sentence for sentence in to_do)


def test_other_differences_are_more_than_noise_even_if_that_of_ap_is_not() -> None:
    metrics = {
        "AP": {"difference": 1.0, "low": -0.2, "high": 1.8},
        "AP75": {"difference": 5.0, "low": 1.0, "high": 9.0},
    }
    difference = {"of": "D1", "over": "D0", "images": 72, "metrics": metrics, "sentence": "AP is no more than noise."}
    report = {**of(NUMBERS, NUMBERS), "differences": [difference]}
    assert findings(report)[1:3] == [
        "AP is no more than noise.",
        "D1 and D0 differ by more than noise in AP75 (+5.00).",
    ]


def test_equal_ap_has_two_leaders() -> None:
    assert findings(of(NUMBERS, {**NUMBERS, "AP": 49.96}))[0].startswith("D0 and D1 have the highest AP, 50.0, on")


def test_good_numbers_need_no_remedy() -> None:
    report = of({"AP": 60.0, "oracle_gap": 0.2, "lace": 0.03, "lace_recalibrated": 0.029, "duplicates_70": 0.001})
    report["detectors"][0] |= {"thresholds": [None, None, None], "unmatched": []}
    assert advice(report) == []
    assert len(findings(report)) == 1
