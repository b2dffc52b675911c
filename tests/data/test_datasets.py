"""Loading of data sets: every fault is one sentence that names the file, annotation or key, and the remedy."""

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from detectron2.structures import BoxMode
from omegaconf import ListConfig

from align_detr.data import check_dataset, check_num_classes, count_images, datasets_read_once, load_dataset
from align_detr.errors import DatasetError
from support.datasets import forgotten

Register = Callable[..., str]


def fault(function: Callable, *arguments: object) -> str:
    with pytest.raises(DatasetError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_good_data_set_is_loaded_counted_and_reported(tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="align_detr.data"):
        records = load_dataset(tiny)
    assert [r["image_id"] for r in records] == list(range(1, 11))
    assert {a["category_id"] for r in records for a in r["annotations"]} == {0, 1}
    lines = [r.getMessage() for r in caplog.records if r.name == "align_detr.data.check_records"]
    # 9 annotations: 1 crowd region; image 1 and the crowd's image 2 are without objects; image 3's box has no width
    assert lines == [
        f"Data set {tiny}: 10 images (2 without objects), 8 boxes; training leaves out 1 crowd regions and 1 boxes "
        "without width or height.",
        f"Boxes per class of {tiny}: cell 4, star 4.",
    ]


def test_boxes_of_records_in_a_wrong_form_are_counted(tiny: str, caplog: pytest.LogCaptureFixture) -> None:
    """Corners as width and height: 30 + 38 is beyond 40 pixels; fractions: within the first pixel."""
    boxes = [[30, 10, 38, 28], [0.1, 0.2, 0.5, 0.5], [5, 5, 35.5, 25]]
    annotations = [{"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0} for box in boxes]
    record = {"file_name": "a.png", "image_id": 1, "width": 40, "height": 30, "annotations": annotations}
    check_dataset("records_for_tests", [record])
    assert "1 boxes reach beyond their image by more than a pixel, and 1 lie within its first pixel" in caplog.text


def test_several_data_sets_are_put_together(tiny: str, register: Register, annotations: dict) -> None:
    other = register(annotations, name="second_for_tests")
    assert len(load_dataset(ListConfig([tiny, other]))) == 20
    assert count_images([tiny, other]) == 20


def test_counting_follows_a_name_that_is_registered_anew(tiny: str) -> None:
    source = DatasetCatalog.data[tiny]
    assert count_images(tiny) == 10
    DatasetCatalog.data[tiny] = lambda: source()[:4]
    assert count_images(tiny) == 4


def test_checking_the_classes_of_a_loaded_data_set_reads_nothing(tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load_dataset(tiny)
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: pytest.fail("read again"))
    check_num_classes(2, tiny)


def test_records_are_kept_for_as_long_as_asked(register: Register, annotations: dict) -> None:
    name = register(annotations, name="counted_then_loaded")
    calls, source = [], DatasetCatalog.data[name]
    DatasetCatalog.data[name] = lambda: calls.append(1) or source()
    with datasets_read_once():
        assert count_images(name) == count_images([name]) == len(load_dataset(name)) == 10
        check_num_classes(len(annotations["categories"]), name)
        assert len(load_dataset(name)) == 10 and len(calls) == 1
    assert len(load_dataset(name)) == 10 and len(calls) == 2, "nothing is kept outside"


def test_unknown_name_suggests_the_nearest() -> None:
    message = fault(load_dataset, "coco_2017_trian")
    assert "'coco_2017_trian' is not registered" in message and "coco_2017_train" in message
    assert "register_coco_instances" in message


def test_name_without_resemblance_lists_the_known_ones() -> None:
    assert "digits_train" in fault(load_dataset, "zzzzzzzz")


def test_no_name_at_all() -> None:
    assert "dataloader.train.dataset" in fault(load_dataset, [])


def test_missing_annotation_file(register: Register, tmp_path: Path, annotations: dict) -> None:
    name = register(annotations)
    path = tmp_path / name / "instances.json"
    path.unlink()
    message = fault(load_dataset, name)
    assert str(path) in message and "does not exist" in message and "DETECTRON2_DATASETS" in message


def test_missing_built_in_data_set_names_its_own_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGN_DETR_DATA", str(tmp_path))
    register_coco_instances("absent_for_tests", {}, str(tmp_path / "bccd" / "absent.json"), str(tmp_path))
    with forgotten("absent_for_tests"):
        message = fault(load_dataset, "absent_for_tests")
    assert "absent.json" in message and "set ALIGN_DETR_DATA" in message and "datasets of a checkout" in message


def test_missing_image_folder(register: Register, tmp_path: Path, annotations: dict) -> None:
    name = register(annotations, with_images=False)
    message = fault(load_dataset, name)
    assert str(tmp_path / name / "images") in message and "DETECTRON2_DATASETS" in message


def test_category_that_is_not_in_the_list(register: Register, tmp_path: Path, annotations: dict) -> None:
    annotations["annotations"][4]["category_id"] = 7
    name = register(annotations)
    message = fault(load_dataset, name)
    for part in (str(tmp_path / name / "instances.json"), "annotation 6 ", "image 6 (6.png)", "category_id 7"):
        assert part in message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{not json", "is no JSON (Expecting property name"),
        ("[]", "holds a JSON list, but COCO's format is"),
        (json.dumps({"images": []}), 'has no "categories"'),
        (json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}), "has no images"),
    ],
)
def test_file_that_is_no_coco_file(register: Register, content: str, expected: str) -> None:
    message = fault(load_dataset, register(content))
    assert "instances.json" in message and expected in message


def test_annotation_without_a_box(register: Register, annotations: dict) -> None:
    del annotations["annotations"][4]["bbox"]
    assert re.search(r"annotation 6 of image 6 .*has no box: add its bbox", fault(load_dataset, register(annotations)))


def test_box_that_is_not_finite(register: Register, annotations: dict) -> None:
    annotations["annotations"][4]["bbox"] = [1, 2, float("nan"), 4]
    assert re.search(r"image 6 .*not finite", fault(load_dataset, register(annotations)))


def test_data_sets_of_different_classes(tiny: str, register: Register, annotations: dict) -> None:
    annotations["categories"] = [{"id": 1, "name": "cell"}, {"id": 5, "name": "moon"}]
    other = register(annotations, name="moons_for_tests")
    message = fault(load_dataset, [tiny, other])
    assert tiny in message and other in message and "different classes" in message


def test_class_in_a_list_of_records_that_the_data_set_does_not_have(tmp_path: Path) -> None:
    annotation = {"bbox": [0, 0, 4, 4], "bbox_mode": 0, "category_id": 2}
    records = [{"file_name": "a.png", "image_id": 3, "height": 9, "width": 9, "annotations": [annotation]}]
    DatasetCatalog.register("records_for_tests", lambda: records)
    MetadataCatalog.get("records_for_tests").thing_classes = ["a", "b"]
    with forgotten("records_for_tests"):
        message = fault(load_dataset, "records_for_tests")
    assert "image 3 (a.png)" in message and "class 2" in message and "2 classes" in message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), "does not fit into memory: free some"),
        (OSError("gone"), r"cannot be loaded (OSError: gone): correct the function"),
    ],
)
def test_function_that_fails(error: Exception, expected: str) -> None:
    def load() -> list[dict]:
        raise error

    DatasetCatalog.register("failing_for_tests", load)
    try:
        assert expected in fault(load_dataset, "failing_for_tests")
    finally:
        DatasetCatalog.remove("failing_for_tests")


def test_class_below_0_where_the_classes_are_not_known() -> None:
    annotation = {"bbox": [0, 0, 4, 4], "bbox_mode": 0, "category_id": -1}
    record = {"file_name": "a.png", "image_id": 3, "height": 9, "width": 9, "annotations": [annotation]}
    message = fault(check_dataset, "no_such_name", [record])
    assert "image 3 (a.png)" in message and "has class -1, but classes count from 0" in message


def test_class_count_that_differs(tiny: str) -> None:
    message = fault(check_num_classes, 91, tiny)
    assert "91 classes" in message and f"'{tiny}' has 2" in message and "model.head.num_classes=2" in message
    check_num_classes(2, tiny)


def test_class_count_of_coco_needs_no_files() -> None:
    check_num_classes(80, "coco_2017_train")
    assert "'coco_2017_train' has 80" in fault(check_num_classes, 91, "coco_2017_train")
