"""The report's numbers: complete, plain, and the same whatever the order of the file."""

import json

import numpy as np
import pytest

from align_detr.analysis import analyse
from align_detr.analysis.results import Results
from align_detr.analysis.tables import sort_detections
from support.results import draw_results

SIZE = dict(images=12, classes=3, objects=60, detections=300)
OVERALL = {
    *("AP", "AP50", "AP75", "APs", "APm", "APl", "oracle_AP", "oracle_gap", "pearson", "spearman"),
    *(f"recall_best_regressed{multiple}" for multiple in ("", "_2N", "_3N", "_5N", "_10N", "_any_class")),
}


@pytest.fixture(scope="module")
def first() -> Results:
    return draw_results(0, **SIZE)


@pytest.fixture(scope="module")
def numbers(first) -> dict:
    """The numbers of two detectors, the second of which is the first with noise added to its scores."""
    found = first.detections
    noise = np.random.default_rng(1).normal(0, 0.2, len(found))
    second = sort_detections(found.image, found.label, found.score + noise, found.box)
    return analyse(first.truth, {"one": found, "other": second}, samples=20, seed=5)


def test_every_number_is_there(numbers):
    assert [detector["name"] for detector in numbers["detectors"]] == ["one", "other"]
    for detector in numbers["detectors"]:
        assert set(detector["overall"]) >= OVERALL
        assert all(len(values) == 3 for values in detector["per_class"].values())
        assert set(detector["per_class"]) == set(detector["overall"])
        assert set(detector["per_size"]) == {"small", "medium", "large"}
    assert numbers["ground_truth"]["images"] == 12 and numbers["format"] == 1


def test_numbers_are_json(numbers):
    """Without NaN, and the same once they are read again."""
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers


def test_size_has_the_ap_of_its_objects(numbers):
    for detector in numbers["detectors"]:
        for size, values in detector["per_size"].items():
            assert values["AP"] == detector["overall"][f"AP{size[0]}"]


def test_differences_are_of_the_second_over_the_first(numbers):
    one, other = (detector["overall"] for detector in numbers["detectors"])
    (difference,) = numbers["differences"]
    stated = {key: difference[key] for key in ("of", "over", "images", "samples", "seed")}
    assert stated == {"of": "other", "over": "one", "images": 12, "samples": 20, "seed": 5}
    assert set(difference["metrics"]) == set(one)
    for name, each in difference["metrics"].items():
        assert each["difference"] == pytest.approx(other[name] - one[name])
        assert each["low"] is None or each["low"] <= each["high"]


def test_order_of_entries_changes_nothing(first):
    found = first.detections
    order = np.random.default_rng(0).permutation(len(found))
    other = sort_detections(found.image[order], found.label[order], found.score[order], found.box[order])
    values = analyse(first.truth, {"one": found}), analyse(first.truth, {"one": other})
    assert values[0] == values[1]


@pytest.mark.parametrize(
    "size",
    [
        dict(images=3, classes=2, objects=5, detections=0),
        dict(images=3, classes=2, objects=0, detections=5),
        dict(images=1, classes=1, objects=0, detections=0),
        dict(images=1, classes=3, objects=2, detections=5),
    ],
    ids=str,
)
def test_where_nothing_is_measured_there_is_none(size):
    results = draw_results(0, **size)
    numbers = analyse(results.truth, {"one": results.detections, "other": results.detections}, samples=5)
    assert (numbers["detectors"][0]["overall"]["AP"] is None) == (size["objects"] == 0)
    json.dumps(numbers, allow_nan=False)
