"""The sentences of the summary, of numbers written by hand."""

import re
from typing import Any

from align_detr.report.summary import advice, findings
from support.report import make_report

NUMBERS = {
    "AP": 50.04,
    "AP50": 80.0,
    "AP75": 55.0,
    "oracle_AP": 61.5,
    "oracle_gap": 11.46,
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
        "With perfect scores (each the IoU of its box) the same boxes would have AP 61.5 instead of 50.0.",
        "The best box of an object is among the N most confident of its image, which has N objects, for 45.2% of the "
        "objects.",
        "Pearson's correlation of score and IoU of matched detections, at best 1, is 0.50.",
        "The costliest error is “box” with 8.5 of AP50.",
    ]
    assert [re.findall(r"\d+\.\d+%?|\b\d+\b", sentence) for sentence in advice(of(NUMBERS))] == [
        ["0.30"],
        ["11.5"],
        ["12.0%", "4.0%"],
        ["7", "100", "7"],
        ["2"],
    ]


def test_several_detectors_share_a_sentence() -> None:
    report = of(NUMBERS, {**NUMBERS, "AP": 51.0, "oracle_gap": 0.3, "duplicates_70": 0.0}, {**NUMBERS, "AP": None})
    report["differences"] = [{"sentence": "D1 over D0 is more than noise."}]
    found = findings(report)
    assert found[:2] == [
        "D1 has the highest AP, 51.0, on 72 images with 945 objects of 3 classes; D0 50.0.",
        "D1 over D0 is more than noise.",
    ]
    assert found[2].endswith("AP 61.5 instead of 50.0 (D0) and AP 61.5 instead of 51.0 (D1).")
    to_do = advice(report)
    assert any("by 11.5 (D0) and 11.5 (D2) of AP" in sentence for sentence in to_do)
    assert any("nobody labelled: 2 (D0), 2 (D1) and 2 (D2)." in sentence for sentence in to_do)


def test_equal_ap_has_two_leaders() -> None:
    assert findings(of(NUMBERS, {**NUMBERS, "AP": 49.96}))[0].startswith("D0 and D1 have the highest AP, 50.0, on")


def test_good_numbers_need_no_remedy() -> None:
    report = of({"AP": 60.0, "oracle_gap": 0.2, "lace": 0.03, "lace_recalibrated": 0.029, "duplicates_70": 0.001})
    report["detectors"][0] |= {"thresholds": [None, None, None], "unmatched": []}
    assert advice(report) == []
    assert len(findings(report)) == 1
