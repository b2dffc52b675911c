"""COCO's evaluation of data sets of every registration: official numbers, nothing that costs AP, nothing silent."""

import contextlib
import io
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import register_pascal_voc
from detectron2.structures import BoxMode
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from align_detr.data import load_dataset
from align_detr.data.coco import read_coco
from align_detr.data.register import register as register_annotations
from align_detr.errors import ConfigError, DatasetError, NonFinitePrediction
from align_detr.evaluation import RESULTS_FILE, DetectionEvaluator
from support.oracle import detections, evaluate_perfect, perfect, records
from support.paths import require_data
from support.processes import in_two_processes

Register = Callable[..., str]
NAMES = ["bolt", "screw"]
BOXES = [(10.0, 20.0, 40.0, 60.0), (50.5, 60.25, 150.0, 180.0), (100.0, 5.0, 110.0, 15.0)]
TWO_IMAGES = [[(0, BOXES[0]), (1, BOXES[1]), (1, BOXES[2])], [], [(1, BOXES[0])]]
PERFECT = pytest.approx(100, abs=1e-9)  # COCO adds a tiny number to the divisor of the precision
OFFICIAL = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]


def detect_at_random(name: str, folder: Path) -> dict[str, float]:
    """Evaluate moved, doubled and invented boxes, with scores that repeat; return {metric: percent}."""
    rng = np.random.default_rng(0)
    evaluator = DetectionEvaluator(dataset_name=name, output_dir=str(folder))
    classes = len(evaluator.truth.class_names)
    for record in load_dataset(name):
        boxes, labels = [], []
        for annotation in record["annotations"] * 2:
            x, y, w, h = annotation["bbox"]
            boxes.append(np.array([x, y, x + w, y + h]) + rng.normal(0, 0.08, 4) * [w, h, w, h])
            labels.append(annotation["category_id"] if rng.random() < 0.9 else int(rng.integers(classes)))
        for _ in range(30):
            corner = rng.uniform(0, 100, 2)
            boxes.append(np.concatenate([corner, corner + rng.uniform(5, 200, 2)]))
            labels.append(int(rng.integers(classes)))
        evaluator.process([record], [detections(boxes, labels, np.round(rng.random(len(boxes)), 1).tolist())])
    return evaluator.evaluate()["bbox"]


def official(json_file: Path, results: Path) -> list[float]:
    """Return pycocotools' twelve numbers, in percent, of a results file on an annotation file."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(json_file))
        evaluation = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value * 100) if value >= 0 else math.nan for value in evaluation.stats]


def check_official(name: str, json_file: Path, folder: Path) -> dict[str, float]:
    """Check that the numbers on a data set are pycocotools' on its file, to the last digit; return them."""
    found = detect_at_random(name, folder)
    np.testing.assert_array_equal([found[name] for name in OFFICIAL], official(json_file, folder / RESULTS_FILE))
    assert all(0 < found[name] < 100 for name in ("AP", "AP50", "AR10"))
    return found


@pytest.mark.parametrize(("name", "classes"), [("coco_mini_val", 80), ("bccd_val", 3), ("raccoon_val", 1)])
def test_numbers_on_the_small_data_sets_are_the_official_ones(tmp_path: Path, name: str, classes: int) -> None:
    """They are registered by detectron2's `register_coco_instances`."""
    require_data(name.removesuffix("_val"))
    found = check_official(name, Path(MetadataCatalog.get(name).json_file), tmp_path)
    assert len([key for key in found if key.startswith("AP-")]) == classes


def test_numbers_on_any_coco_file_are_the_official_ones(tmp_path: Path) -> None:
    """Masks smaller than their boxes, crowd regions, images without objects, ids with gaps and in no order."""
    rng = np.random.default_rng(1)
    images = [{"id": int(i), "file_name": f"{i}.jpg", "width": 400, "height": 400} for i in rng.permutation(20) * 7 + 3]
    annotations = []
    for number in rng.permutation(80) + 11:
        (x, y), (w, h) = rng.uniform(0, 150, 2), rng.uniform(8, 200, 2)
        annotations.append(
            {
                "id": int(number),
                "image_id": images[int(rng.integers(15))]["id"],
                "category_id": int(rng.choice([90, 4, 17])),
                "bbox": [x, y, w, h],
                "area": w * h * rng.uniform(0.1, 1),
                "iscrowd": int(rng.random() < 0.15),
            }
        )
    categories = [{"id": k, "name": str(k)} for k in (90, 4, 17, 5)]
    file = tmp_path / "instances.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    register_annotations("official_numbers", lambda: read_coco(file, tmp_path))
    found = check_official("official_numbers", file, tmp_path)
    assert math.isnan(found["AP-5"]), "no object is of class 5"
    assert found["AP"] == pytest.approx(np.mean([found["AP-4"], found["AP-17"], found["AP-90"]]))
    written = json.loads((tmp_path / RESULTS_FILE).read_text())
    assert {row["category_id"] for row in written} == {4, 5, 17, 90}
    assert {row["image_id"] for row in written} == {image["id"] for image in images}


def test_what_a_data_set_leaves_out_costs_no_ap(register: Register) -> None:
    """Records of a function, without area, iscrowd and ids."""
    found = evaluate_perfect(register(records(TWO_IMAGES), thing_classes=NAMES))["bbox"]
    assert [found[key] for key in ("AP", "AP-bolt", "AP-screw")] == [PERFECT] * 3
    assert [found[key] for key in ("APs", "APm", "APl")] == [PERFECT] * 3, "an area that is missing is that of the box"


def test_image_ids_are_numbers_text_or_file_names(register: Register) -> None:
    for number, change in enumerate(
        [lambda r: r.update(image_id=f"photo {r['image_id']}"), lambda r: r.pop("image_id")]
    ):
        source = records(TWO_IMAGES)
        for record in source:
            change(record)
        assert evaluate_perfect(register(source, f"ids_{number}", thing_classes=NAMES))["bbox"]["AP"] == PERFECT


def test_classes_without_names_are_numbered(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    name = register(records(TWO_IMAGES))
    found = evaluate_perfect(name)["bbox"]
    assert [found[key] for key in ("AP", "AP-0", "AP-1")] == [PERFECT] * 3
    assert f"The data set '{name}' names no classes" in caplog.text


def test_pascal_voc_as_detectron2_registers_it(tmp_path: Path) -> None:
    for folder in ("ImageSets/Main", "Annotations"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets/Main/val.txt").write_text("a\nb\n")
    size = "<size><width>200</width><height>150</height></size>"
    box = "<bndbox><xmin>21</xmin><ymin>31</ymin><xmax>60</xmax><ymax>80</ymax></bndbox>"
    for stem, objects in (("a", f"<object><name>screw</name>{box}</object>"), ("b", "")):
        (tmp_path / f"Annotations/{stem}.xml").write_text(f"<annotation>{size}{objects}</annotation>")
    register_pascal_voc("voc_for_evaluation", str(tmp_path), "val", 2007, class_names=NAMES)
    found = evaluate_perfect("voc_for_evaluation", output_dir=str(tmp_path))["bbox"]
    assert found["AP"] == PERFECT and found["AP-screw"] == PERFECT and math.isnan(found["AP-bolt"])
    (row,) = json.loads((tmp_path / RESULTS_FILE).read_text())
    assert (row["image_id"], row["category_id"], row["bbox"]) == ("a", 1, [20, 30, 40, 50])


def test_annotation_ids_and_keys_of_a_coco_file_cost_no_ap(tmp_path: Path) -> None:
    """Ids from 0 cost AP (the first object counts as missed) and a missing area or iscrowd is an error elsewhere."""
    boxes = [{"id": k, "image_id": 1 + k % 2, "category_id": k % 2, "bbox": [9 * k, 5, 8, 9]} for k in range(6)]
    coco = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 200, "height": 200} for k in (1, 2)],
        "annotations": boxes,
        "categories": [{"id": k, "name": name} for k, name in enumerate(NAMES)],
    }
    file = tmp_path / "instances.json"
    for number, extra in enumerate([{}, {"area": 72}, {"iscrowd": 0}, {"area": 72.0, "iscrowd": 0}]):
        file.write_text(json.dumps({**coco, "annotations": [{**box, **extra} for box in boxes]}))
        name = f"coco_ids_{number}"
        register_annotations(name, lambda: read_coco(file, tmp_path))
        assert evaluate_perfect(name)["bbox"]["AP"] == PERFECT


def test_an_area_that_is_missing_is_that_of_the_mask(register: Register) -> None:
    """A triangle of 40 x 60 pixels in a box of 2,400 is medium (1,200 pixels); one of 30 x 60 is small (900)."""
    for k, (width, size) in enumerate([(40, "APm"), (30, "APs")]):
        source = records([[(0, (10, 10, 10 + width, 70))]])
        source[0]["annotations"][0]["segmentation"] = [[10, 10, 10 + width, 10, 10, 70]]
        found = evaluate_perfect(register(source, f"masks_{k}", thing_classes=["a"]))["bbox"]
        sizes = {key: found[key] for key in ("APs", "APm", "APl") if not math.isnan(found[key])}
        assert sizes == {size: PERFECT}


def test_two_classes_of_one_name_have_an_ap_each(register: Register) -> None:
    """The detector finds the one object of the first class alone."""
    source = records([[(0, BOXES[0]), (1, BOXES[1])]])
    name = register(source, thing_classes=["screw", "screw"], thing_dataset_id_to_contiguous_id={3: 0, 8: 1})
    evaluator = DetectionEvaluator(dataset_name=name)
    evaluator.process(source, [detections([BOXES[0]], [0], [0.5])])
    found = evaluator.evaluate()["bbox"]
    assert found["AP-screw (category 3)"] == PERFECT and found["AP-screw (category 8)"] == 0
    assert found["AP"] == pytest.approx(50)


def test_objects_beyond_the_detections_that_count_are_told(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 150 objects 100 count: recall 2/3, so that precision is 1 at the 67 of COCO's 101 recalls up to it."""
    grid = [(k % 15 * 12, k // 15 * 12, k % 15 * 12 + 10, k // 15 * 12 + 10) for k in range(150)]
    name = register(records([[(0, box) for box in grid], [(0, BOXES[0])] * 2]), thing_classes=["bean"])
    limited = evaluate_perfect(name)["bbox"]
    message = "0.jpg of the data set 'from_a_function' has 150 objects of class bean, but only the 100 best detections"
    assert message in caplog.text and "dataloader.evaluator.max_detections=150" in caplog.text
    assert limited["AP"] == pytest.approx(100 * 68 / 101)  # 102 of 152 objects: recall 0.671
    caplog.clear()
    assert evaluate_perfect(name, max_detections=150)["bbox"]["AP"] == PERFECT
    assert "best detections" not in caplog.text


def test_boxes_that_no_detection_overlaps_are_told(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    """COCO counts them: one of two objects is found, and the detection of the other is false."""
    name = register(records([[(0, BOXES[0]), (0, (5, 5, 5, 9))]]), thing_classes=["a"])
    assert evaluate_perfect(name)["bbox"]["AR100"] == 50
    assert f"The data set '{name}' has 1 boxes without width or height, which COCO's evaluation counts" in caplog.text


@pytest.mark.parametrize("number", [0, -1, 2.5, None])
def test_a_number_of_detections_below_one_is_refused(number: object) -> None:
    with pytest.raises(ConfigError, match="dataloader.evaluator.max_detections is "):
        DetectionEvaluator(dataset_name="never_read", max_detections=number)  # type: ignore[arg-type]


@pytest.mark.parametrize(("box", "score"), [((1, 1, 9, 9), math.nan), ((1, 1, math.inf, 9), 0.5)])
def test_detections_that_are_not_finite_are_refused(register: Register, box: tuple, score: float) -> None:
    """Also beside a right detection: pycocotools sorts NaN last, and would give AP 100."""
    source = records([[(0, BOXES[0])]])
    evaluator = DetectionEvaluator(dataset_name=register(source, thing_classes=["a"]))
    with pytest.raises(NonFinitePrediction, match=r"1 of 2 detections of image 0 \(0.jpg\) have a score or box that"):
        evaluator.process(source, [detections([BOXES[0], box], [0, 0], [0.9, score])])


def test_nothing_found_is_ap_0(register: Register) -> None:
    source = records(TWO_IMAGES)
    evaluator = DetectionEvaluator(dataset_name=register(source, thing_classes=NAMES))
    evaluator.process(source, [detections([], [], [])] * 3)
    found = evaluator.evaluate()["bbox"]
    assert found["AP"] == found["AP-bolt"] == found["AR100"] == 0


def test_a_data_set_without_annotations_keeps_its_detections(
    register: Register, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = records([[], []])
    for record in source:
        del record["annotations"]
    name = register(source, thing_classes=NAMES, thing_dataset_id_to_contiguous_id={7: 0, 9: 1})
    evaluator = DetectionEvaluator(dataset_name=name, output_dir=str(tmp_path / "inference"))
    evaluator.process(source, [detections([(1, 2, 4, 6)], [1], [0.5]), detections([], [], [])])
    assert evaluator.evaluate() == {}
    assert "has no annotations, so that there is no AP" in caplog.text
    written = json.loads((tmp_path / "inference" / RESULTS_FILE).read_text())
    assert written == [{"image_id": 0, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.5}]


def test_the_table_counts_boxes_and_images_of_each_class(register: Register, caplog: pytest.LogCaptureFixture) -> None:
    source = records(TWO_IMAGES)
    source[0]["annotations"].append({**source[0]["annotations"][0], "iscrowd": 1})
    with caplog.at_level(logging.INFO, logger="align_detr.evaluation.coco"):
        evaluate_perfect(register(source, thing_classes=[*NAMES, "nut"]))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in caplog.text.splitlines() if "|" in line]
    assert rows[-3:] == [["bolt", "100.000", "1", "1"], ["screw", "100.000", "3", "2"], ["nut", "nan", "0", "0"]]
    assert rows[-5] == ["class", "AP", "boxes", "images"]


def test_an_image_shown_twice_counts_once_and_one_left_out_is_told(
    register: Register, caplog: pytest.LogCaptureFixture
) -> None:
    source = records([[(0, BOXES[0])], [(0, BOXES[1])]])
    evaluator = DetectionEvaluator(dataset_name=register(source, thing_classes=["a"]))
    for _ in range(2):
        evaluator.process(source[:1], [perfect(source[0])])
    assert evaluator.evaluate()["bbox"]["AP"] == pytest.approx(100 * 51 / 101)  # half of the objects, no false one
    assert "left out 1 images of the data set" in caplog.text
    evaluator.reset()
    assert evaluator.evaluate()["bbox"]["AP"] == 0, "detections of an earlier evaluation are forgotten"


def test_what_does_not_belong_to_the_data_set_is_refused(register: Register) -> None:
    source = records([[(0, BOXES[0])]])
    evaluator = DetectionEvaluator(dataset_name=register(source, thing_classes=["a"]))
    for change, message in (
        ({"image_id": 5}, r"gives image 5 \(0.jpg\), which is no image in the data set 'from_a_function'"),
        ({"file_name": "b.jpg"}, r"gives image 0 \(b.jpg\), which is 0.jpg in the data set 'from_a_function'"),
    ):
        with pytest.raises(DatasetError, match=message):
            evaluator.process([{**source[0], **change}], [perfect(source[0])])
    with pytest.raises(DatasetError, match="finds class 1, but the data set 'from_a_function' has 1 classes"):
        evaluator.process(source, [detections([BOXES[0]], [1], [0.5])])


def test_two_images_of_one_id_are_refused(register: Register) -> None:
    source = records([[(0, BOXES[0])], []])
    source[1]["image_id"] = 0
    with pytest.raises(DatasetError, match="images 0.jpg and 1.jpg of the data set '.*' have the same image_id 0"):
        DetectionEvaluator(dataset_name=register(source, thing_classes=["a"]))


def test_other_box_modes_are_converted(register: Register) -> None:
    source = records([[(0, BOXES[0])]])
    source[0]["annotations"] = [{"bbox": [10, 20, 30, 40], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}]
    evaluator = DetectionEvaluator(dataset_name=register(source, thing_classes=["a"]))
    evaluator.process(source, [detections([BOXES[0]], [0], [0.5])])
    assert evaluator.evaluate()["bbox"]["AP"] == PERFECT


def evaluate_half(rank: int) -> dict:
    """Evaluate in a process that sees every other image."""
    from detectron2.data import DatasetCatalog, MetadataCatalog

    source = records(TWO_IMAGES)
    DatasetCatalog.register("shared_by_two", lambda: source)
    MetadataCatalog.get("shared_by_two").thing_classes = NAMES
    evaluator = DetectionEvaluator(dataset_name="shared_by_two")
    for record in source[rank::2]:
        evaluator.process([record], [perfect(record)])
    return evaluator.evaluate()


def test_two_processes_share_the_images(tmp_path: Path) -> None:
    first, second = in_two_processes(evaluate_half, tmp_path)
    assert first["bbox"]["AP"] == PERFECT and second == {}
