"""The report of `validate`, its command and its cleaned copy, on data whose counts a reader can see."""

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from align_detr.cli import main as cli
from align_detr.data import find
from align_detr.data.annotations import Annotations
from align_detr.data.layouts import Split
from align_detr.data.validation import fix, validate
from align_detr.data.validation.statistics import Statistics, statistics_of
from align_detr.errors import EXIT_USER_ERROR, DatasetError
from support.broken import write_broken, write_data
from support.paths import PROJECT
from support.trees import write_images, write_labels, write_text


def test_statistics_count_classes_sizes_and_objects_per_image() -> None:
    """Areas of 1023, 1024, 9215 and 9216 pixels are small, medium, medium and large; the crowd region is none."""
    areas = [1023, 1024, 9215, 9216, 50]
    annotations = [
        {"id": k, "image_id": 3 if k < 4 else 5, "category_id": 9 if k == 1 else 2, "area": area, "iscrowd": k == 5}
        for k, area in enumerate(areas, start=1)
    ]
    images = [{"id": id_, "file_name": f"{id_}.jpg"} for id_ in (5, 3, 4)]
    categories = [{"id": 9, "name": "nut"}, {"id": 2, "name": "bolt"}, {"id": 4, "name": "screw"}]
    assert statistics_of(Annotations(images, annotations, categories, Path(), Path())) == Statistics(
        images=3,
        empty_images=1,
        crowds=1,
        objects=4,
        classes={"bolt": 3, "screw": 0, "nut": 1},
        sizes=(1, 2, 1),
        per_image=(0, 1.0, 3),
        fullest="3.jpg",
    )


def test_the_blood_cells_are_usable_with_the_counts_of_their_readme(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["validate", str(PROJECT / "datasets" / "bccd"), "--no-images"]) == 0
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:1] == "|"]
    assert ["train", "205", "0", "2804", "0", "23", "855", "1926", "1 to 28 (median 14)"] in [row[:9] for row in rows]
    assert ["RBC", "2381", "967", "805"] in rows
    assert printed.endswith("Errors: 0, repaired on loading: 0, notes: 0. Usable.\n")


def test_errors_end_with_2_and_the_copy_with_0(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_broken(tmp_path / "data", lambda coco, folder: coco["annotations"][2].update(bbox=[1, 2, float("nan"), 4]))
    report, copy = tmp_path / "reports" / "data.json", tmp_path / "copy"
    arguments = ["validate", str(tmp_path / "data"), "--json", str(report), "--fix", str(copy)]
    assert cli.main(arguments) == EXIT_USER_ERROR
    assert "Errors: 1, repaired on loading: 0, notes: 0. Not usable" in capsys.readouterr().out
    written = json.loads(report.read_text())
    (problem,) = written["splits"]["train"]["problems"]
    assert not written["usable"] and problem["kind"] == "box-not-finite"
    assert problem["examples"] == ["annotation 3 of image 2 (train_2.png)"]
    assert written["splits"]["train"]["statistics"]["classes"] == {"bolt": 2, "screw": 3}
    assert (copy / "changes.txt").read_text().splitlines() == [
        "train: 1 removed (box-not-finite): the first has the box [1, 2, nan, 4], which is not finite",
        "    annotation 3 of image 2 (train_2.png)",
    ]
    assert cli.main(["validate", str(copy)]) == 0
    assert find(copy).class_names == ["bolt", "screw"]
    assert cli.main(arguments) == EXIT_USER_ERROR, "the folder exists"
    assert "copy exists: name a new folder" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["data", "data/copy", "."])
def test_data_and_copy_are_apart(tmp_path: Path, out: str, capsys: pytest.CaptureFixture) -> None:
    """A copy below its data would be read with it the next time."""
    write_data(tmp_path / "data")
    before = set(tmp_path.rglob("*"))
    assert cli.main(["validate", str(tmp_path / "data"), "--fix", str(tmp_path / out)]) == EXIT_USER_ERROR
    assert "overlap: name a new folder apart from it" in capsys.readouterr().err
    with pytest.raises(DatasetError, match="overlap"):
        fix(validate(tmp_path / "data"), tmp_path / out)
    assert set(tmp_path.rglob("*")) == before


def test_only_some_entries_are_named_and_all_are_counted(tmp_path: Path) -> None:
    def no_areas(coco: dict, folder: Path) -> None:
        for annotation in coco["annotations"]:
            del annotation["area"]

    write_broken(tmp_path, no_areas)
    (found,) = validate(tmp_path).splits[0].found
    assert found.problem.count == 6 and len(found.examples) == 3
    assert "(5 more like it)" in found.problem.sentence
    assert "also annotation 2 of image 1 (train_1.png), annotation 3" in validate(tmp_path).text()


def test_a_folder_of_yolo_files_is_validated_and_cleaned_as_coco(tmp_path: Path) -> None:
    """Label files have no ids: the file and the line are named."""
    data = tmp_path / "data"
    write_images(data / "images")
    write_labels(data / "labels")
    write_text(data / "labels" / "c.txt", "0 0.5 0.5 0.2 0.2\n0 0.5 0.5 0.2 0\n")
    write_text(data / "classes.txt", "screw\nbolt\n")
    (found,) = validate(data).splits[0].found
    assert (found.problem.kind, found.problem.severity) == ("box-empty", "note")
    assert "c.txt, line 2" in found.problem.sentence
    assert cli.main(["validate", str(data), "--fix", str(tmp_path / "copy")]) == 0
    split = find(tmp_path / "copy").split("train")
    assert isinstance(split, Split) and len(split.annotations.annotations) == 5


@pytest.mark.parametrize("mode", [BoxMode.XYXY_ABS, BoxMode.XYWH_ABS])
def test_a_data_set_registered_by_a_function_is_validated(tmp_path: Path, mode: BoxMode) -> None:
    write_data(tmp_path)
    box = [4, 5, 70, 12] if mode == BoxMode.XYWH_ABS else [4, 5, 74, 17]
    record = {"file_name": str(tmp_path / "images" / "train_1.png"), "image_id": 0, "width": 60, "height": 40}
    objects = [{"bbox": box, "bbox_mode": mode, "category_id": 1}]
    DatasetCatalog.register("validated_for_tests", lambda: [{**record, "annotations": objects}])
    MetadataCatalog.get("validated_for_tests").thing_classes = ["bolt", "screw"]
    try:
        report = validate("validated_for_tests")
    finally:
        DatasetCatalog.remove("validated_for_tests")
        MetadataCatalog.remove("validated_for_tests")
    kinds = {found.problem.kind: found.problem for found in report.splits[0].found}
    assert "[4, 5, 70, 12]" in kinds["box-beyond"].sentence and kinds["category-unused"].count == 1
    assert report.usable and report.splits[0].statistics.classes == {"bolt": 0, "screw": 1}


def test_registered_names_and_files_are_one_split_each(tmp_path: Path) -> None:
    write_data(tmp_path)
    report = validate(["bccd_val", tmp_path / "val.json"], open_images=False)
    assert [(split.name, split.statistics.images) for split in report.splits] == [("bccd_val", 87), ("val", 3)]
    with pytest.raises(DatasetError, match="is a folder beside other data: validate a folder alone"):
        validate(["bccd_val", tmp_path])


def test_a_data_yaml_stands_for_its_data_set(tmp_path: Path) -> None:
    for split, names in (("train", "abc"), ("val", "c")):
        write_images(tmp_path / "images" / split, names)
        write_labels(tmp_path / "labels" / split, names)
    write_text(tmp_path / "data.yaml", "train: images/train\nval: images/val\nnames: [screw, bolt]\n")
    report = validate(tmp_path / "data.yaml")
    assert [split.name for split in report.splits] == ["train", "val"] and not report.usable
    assert "photo-in-two-splits" in {found.problem.kind for found in report.splits[1].found}


def test_a_function_that_fails_is_one_sentence() -> None:
    def load() -> list[dict]:
        raise OSError("gone")

    DatasetCatalog.register("failing_validation", load)
    try:
        with pytest.raises(DatasetError, match=r"'failing_validation' cannot be read \(OSError: gone\): correct"):
            validate("failing_validation")
    finally:
        DatasetCatalog.remove("failing_validation")


def test_help_states_the_exit_status(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["validate", "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "exit status: 0 if the data can be used" in printed and "--fix OUT" in printed


@pytest.mark.parametrize("data", ["absent.json", "absent", "bccd_trian"])
def test_data_that_is_not_there_is_named(data: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["validate", str(tmp_path / data)]) == EXIT_USER_ERROR
    error = capsys.readouterr().err
    assert data in error and len(error.splitlines()) == 1


def test_a_name_that_nearly_is_registered_is_suggested() -> None:
    with pytest.raises(DatasetError, match="bccd_trian is neither .* did you mean bccd_train"):
        validate("bccd_trian")
