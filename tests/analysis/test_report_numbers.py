"""The report's numbers: complete, plain, and the same whatever the order of the file."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from align_detr.analysis import analyse, analyse_files
from align_detr.analysis.numbers import METRICS
from align_detr.analysis.report import name_files
from align_detr.analysis.results import Results
from align_detr.analysis.tables import sort_detections
from align_detr.errors import ConfigError
from support.paths import PROJECT
from support.results import coco_entries, coco_evaluation, draw_results

REPORT_PAGE = PROJECT / "docs" / "report.md"
SIZE = dict(images=12, classes=3, objects=60, detections=300)
KEYS = {
    *("name", "file", "detections", "overall", "per_class", "per_size", "thresholds", "curves", "errors"),
    *("unmatched", "misaligned", "duplicates", "layers"),
}
CURVES = {
    "recall_best_regressed": {"multiples", "values"},
    "iou_histogram": {"edges", "best_regressed", "most_confident"},
    "score_iou": {"edges", "density"},
    "reliability": {"edges", "confidence", "quality", "count", "recalibrated"},
    "precision_recall": {"recall", "AP50", "AP75"},
}


@pytest.fixture(scope="module")
def first() -> Results:
    return draw_results(0, **SIZE)


@pytest.fixture(scope="module")
def numbers(first) -> dict:
    """The numbers of two detectors, the second of which is the first with noise added to its scores."""
    found = first.detections
    noise = np.random.default_rng(1).normal(0, 0.2, len(found))
    second = sort_detections(found.image, found.label, (found.score + noise).clip(0, 1), found.box)
    return analyse(first.truth, {"one": found, "other": second}, samples=20, seed=5)


def test_every_number_is_there(numbers):
    assert [detector["name"] for detector in numbers["detectors"]] == ["one", "other"]
    for detector in numbers["detectors"]:
        assert set(detector) == KEYS and list(detector["overall"]) == list(METRICS)
        assert {name: set(curve) for name, curve in detector["curves"].items()} == CURVES
        assert set(detector["errors"]) == {"Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"}
        assert all(len(values) == 3 for values in detector["per_class"].values())
        assert set(detector["per_class"]) == set(detector["overall"])
        assert set(detector["per_size"]) == {"small", "medium", "large"}
    assert numbers["ground_truth"]["images"] == 12 and numbers["format"] == 1


def test_the_documentation_names_every_key(numbers):
    table = re.search(r"^This is the JSON.+?^## ", REPORT_PAGE.read_text(), re.MULTILINE | re.DOTALL)[0]
    rows = {key: set(re.findall(r"`(\w+)`", text)) for key, text in re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.M)}
    assert set(rows) == set(numbers) - {"format"}
    assert rows["ground_truth"] == set(numbers["ground_truth"])
    assert rows["detectors"] == set(numbers["detectors"][0]) and rows["differences"] == set(numbers["differences"][0])


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    first, second = coco_entries(draw_results(0, **SIZE)), coco_entries(draw_results(1, **SIZE))
    monkeypatch.chdir(tmp_path)
    named = {"instances_val.json": first[0], "dino.json": first[1], "align_dino.json": second[1]}
    for name, content in named.items():
        (tmp_path / name).write_text(json.dumps(content))
    example = re.search(r"## From Python.+?```python\n(.*?)```", REPORT_PAGE.read_text(), re.DOTALL)[1]
    exec(example.replace("samples=1000", "samples=5"))
    assert len(json.loads((tmp_path / "report.json").read_text())["detectors"]) == 2
    assert "'undefined':" in capsys.readouterr().out


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


def test_files_have_pycocotools_ap_also_where_pycocotools_takes_an_id_for_no_object(tmp_path):
    """Annotation ids from 0, of which pycocotools counts the object 0 as missed, and each id twice."""
    results = draw_results(1, **SIZE)
    truth, found = coco_entries(results)
    truth["annotations"] = [{**each, "id": (each["id"] - 1) // 2} for each in truth["annotations"]]
    paths = tmp_path / "gt.json", tmp_path / "results.json"
    for path, content in zip(paths, (truth, found), strict=True):
        path.write_text(json.dumps(content))
    numbers = analyse_files(paths[0], [paths[1]])
    precision = coco_evaluation(results).eval["precision"][..., 0, -1]
    (detector,) = numbers["detectors"]
    assert detector["overall"]["AP"] == pytest.approx(100 * precision[precision > -1].mean(), abs=1e-9)
    assert (detector["name"], detector["file"]) == ("results", str(paths[1]))
    assert numbers["ground_truth"]["file"] == str(paths[0])


def test_detectors_have_the_names_of_files_or_folders():
    assert name_files(["a/x.json", "a/y.json"]) == ["x", "y"]
    assert name_files(["a/results.json", "b/results.json"]) == ["a", "b"]
    assert name_files(["a/c/results.json", "b/c/results.json"]) == ["c (1)", "c (2)"]
    with pytest.raises(ConfigError, match="names of the results are a, a: give each file another name"):
        analyse_files("gt.json", ["x.json", "y.json"], names=["a", "a"])


def test_files_are_read_without_torch():
    """Nor is any other large library imported before it is needed."""
    code = "import sys, align_detr.analysis; print({'torch', 'detectron2', 'pycocotools', 'sklearn'} & {*sys.modules})"
    printed = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, text=True, capture_output=True, check=True)
    assert printed.stdout == "set()\n"
