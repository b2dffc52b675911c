"""The metrics of alignment as an evaluator: beside COCO's, in a list, on several kinds of data sets and processes."""

import json
import logging
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.config import LazyCall as L
from detectron2.data import MetadataCatalog
from detectron2.evaluation import DatasetEvaluators, print_csv_format
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm
from omegaconf import OmegaConf

from align_detr.analysis import analyse_files
from align_detr.analysis.numbers import METRICS
from align_detr.data import build_test_loader, load_dataset
from align_detr.errors import ConfigError, DatasetError
from align_detr.evaluation import ALIGNMENT_FILE, RESULTS_FILE, DetectionEvaluator, MisalignmentEvaluator, evaluate
from support.oracle import PerfectDetector, detections, perfect, records
from support.paths import PROJECT, require_data

Register = Callable[..., str]
BOXES = [(10.0, 20.0, 40.0, 60.0), (50.5, 60.25, 150.0, 180.0), (100.0, 5.0, 110.0, 15.0)]
IMAGES = [[(0, BOXES[0]), (1, BOXES[1]), (1, BOXES[2])], [], [(1, BOXES[0])]]


def test_numbers_are_those_of_the_files(tmp_path: Path) -> None:
    """Those that `analyse_files` has of the annotations and of the results that the evaluator beside it wrote, and its
    AP is that evaluator's.
    """
    require_data("bccd")
    draw = np.random.default_rng(0)
    options = {"dataset_name": "bccd_val", "output_dir": str(tmp_path)}
    evaluator = DatasetEvaluators([DetectionEvaluator(**options), MisalignmentEvaluator(**options)])
    evaluator.reset()
    for record in load_dataset("bccd_val"):
        box = np.array([a["bbox"] for a in record["annotations"]], dtype=np.float64).reshape(-1, 4)
        box[:, 2:] += box[:, :2]
        box += draw.normal(0, 5, box.shape)
        label = [a["category_id"] for a in record["annotations"]]
        evaluator.process([record], [detections(box, label, draw.random(len(box)).tolist())])
    results = evaluator.evaluate()
    expected = analyse_files(MetadataCatalog.get("bccd_val").json_file, [tmp_path / RESULTS_FILE])
    written = json.loads((tmp_path / ALIGNMENT_FILE).read_text())
    for name in ("overall", "per_class", "per_size", "curves", "misaligned"):
        assert written["detectors"][0][name] == expected["detectors"][0][name]
    assert results["alignment"] == written["detectors"][0]["overall"]
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl"):
        assert results["alignment"][name] == pytest.approx(results["bbox"][name], abs=1e-9, nan_ok=True)


def test_perfect_boxes_have_no_errors(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    """With one score for all, which correlates with nothing; detectron2 prints and logs the numbers."""
    name = register(records(IMAGES), thing_classes=["bolt", "screw"])
    evaluator = MisalignmentEvaluator(dataset_name=name)
    for record in load_dataset(name):
        evaluator.process([record], [perfect(record)])
    results = evaluator.evaluate()
    found = results["alignment"]
    assert [f"alignment/{key}" for key in found] == evaluator.result_names and list(found) == list(METRICS)
    assert found["AP"] == pytest.approx(100) and found["recall_best_regressed"] == 1
    assert [found[key] for key in ("oracle_gap", "olrp", "duplicates_50", "error_loc")] == pytest.approx([0] * 4)
    assert math.isnan(found["pearson"]) and found["lace"] == pytest.approx(0.1)
    with caplog.at_level(logging.INFO):
        print_csv_format(results)
    assert "recall_best_regressed" in caplog.text
    assert all(isinstance(float(value), float) for value in flatten_results_dict(results).values())
    evaluator.reset()
    assert evaluator.evaluate()["alignment"]["AP"] == 0


def test_data_set_that_names_no_classes_has_those_that_are_found(register: Register) -> None:
    name = register(records(IMAGES))
    evaluator = MisalignmentEvaluator(dataset_name=name)
    evaluator.process([load_dataset(name)[0]], [detections([BOXES[0], BOXES[1]], [0, 4], [0.9, 0.8])])
    assert 0 < evaluator.evaluate()["alignment"]["AP"] < 100


def test_data_set_without_annotations_has_no_alignment(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    name = register(records([[], []]), thing_classes=["bolt"])
    evaluator = MisalignmentEvaluator(dataset_name=name)
    assert evaluator.evaluate() == {} and evaluator.result_names == []
    assert f"'{name}' has no annotations, so that there is no alignment to measure." in caplog.text


def test_number_of_detections_below_1_is_refused(register: Register) -> None:
    with pytest.raises(ConfigError, match="max_detections is 0"):
        MisalignmentEvaluator(dataset_name=register(records(IMAGES), thing_classes=["a", "b"]), max_detections=0)


def identity(record: dict) -> dict:
    return record


def test_config_lists_it_beside_the_other(register: Register, tmp_path: Path) -> None:
    """As docs/report.md writes it."""
    name = register(records(IMAGES), thing_classes=["bolt", "screw"])
    loader = L(build_test_loader)(dataset=name, mapper=identity, num_workers=0)
    config = OmegaConf.create(
        {"dataloader": {"test": loader}, "train": {"output_dir": str(tmp_path)}}, flags={"allow_objects": True}
    )
    blocks = re.findall(r"```python\n(.*?)```", (PROJECT / "docs" / "report.md").read_text(), re.DOTALL)
    (code,) = [block for block in blocks if "LazyCall" in block]
    exec(code, {"dataloader": config.dataloader})
    results = evaluate(config.dataloader, PerfectDetector(name))
    assert results["bbox"]["AP"] == pytest.approx(100) and results["alignment"]["AP"] == pytest.approx(100)
    assert {path.name for path in (tmp_path / "inference").iterdir()} == {RESULTS_FILE, ALIGNMENT_FILE}


def test_other_processes_have_no_results(register: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluator = MisalignmentEvaluator(dataset_name=register(records(IMAGES), thing_classes=["bolt", "screw"]))
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    assert evaluator.evaluate() == {}


def test_scores_that_are_no_probabilities_are_refused(register: Register) -> None:
    name = register(records(IMAGES), thing_classes=["bolt", "screw"])
    evaluator = MisalignmentEvaluator(dataset_name=name)
    record = load_dataset(name)[0]
    with pytest.raises(
        DatasetError, match=r"scores from -2 to 3, but the metrics of calibration need them in \[0, 1\]"
    ):
        evaluator.process([record], [detections(BOXES[:2], [0, 1], [3.0, -2.0])])
