"""Every kind of broken data is named in one sentence with its place and remedy, or repaired and counted; none is lost.

The table of kinds is tests/support/broken_cases.py.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances
from PIL import Image

from align_detr.data import DetrMapper, find, load_dataset
from align_detr.data.findings import Problem
from align_detr.data.kinds import KINDS
from align_detr.data.register import register
from align_detr.data.validation import Report, fix, validate
from align_detr.data.validation.kinds import VALIDATION_KINDS
from align_detr.errors import DatasetError
from support.broken import Case, write_broken, write_data
from support.broken_cases import CASES, CORNERS
from support.oracle import evaluate_perfect

OTHERS = {  # tested below, each alone
    "photo-in-two-splits",
    "classes-differ",
    "classes-by-name",
    "image-none",
    "category-none",
    "object-none",
    "image-file-name-backslash",
    "image-large",
}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "_"))


@pytest.fixture
def broken(case: Case, tmp_path: Path) -> Path:
    """Write the case's data set, and return its folder."""
    write_broken(tmp_path / "data", case.change)
    return tmp_path / "data"


@pytest.fixture
def registered(broken: Path) -> Iterator[str]:
    """Register the broken split with detectron2, and return its name."""
    register_coco_instances("broken_train", {}, str(broken / "train.json"), str(broken / "images"))
    yield "broken_train"
    DatasetCatalog.pop("broken_train", None)
    MetadataCatalog.pop("broken_train", None)


def test_every_kind_of_more_than_sixty_has_a_case() -> None:
    covered = {case.kind for case in CASES} | OTHERS
    assert len(covered) >= 60 and len({case.name for case in CASES}) == len(CASES)
    assert covered == {*KINDS, *VALIDATION_KINDS}


def is_repetition(case: Case) -> bool:
    """Return whether one annotation stands in the list twice."""
    return case.kind == "annotation-repeated"


@every_case
def test_validation_names_the_place_and_the_remedy(case: Case, broken: Path) -> None:
    report = validate(broken)
    (train,) = (split for split in report.splits if split.name == "train")
    (problem,) = (found.problem for found in train.found if found.problem.kind == case.kind)
    assert (problem.severity, problem.count) == (case.severity, case.count)
    assert "\n" not in problem.sentence and problem.sentence.endswith(".") and ": " in problem.sentence
    for part in ("train.json", *case.says):
        assert part in problem.sentence
    assert report.usable == (case.severity != "error")
    assert problem.sentence in report.text()


@every_case
def test_training_refuses_it_or_repairs_it_with_all_boxes(
    case: Case, registered: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What validation calls an error is refused, at the latest when the image is read; else no box is lost."""
    given = json.loads(Path(MetadataCatalog.get(registered).json_file).read_text())["annotations"]
    read = DetrMapper(augmentations=[], is_train=True)
    with caplog.at_level(logging.INFO):
        if case.severity == "error":
            with pytest.raises(DatasetError) as error:
                [read(record) for record in load_dataset(registered)]
            assert str(error.value).endswith(".") and "\n" not in str(error.value)
            return
        records = load_dataset(registered)
    assert sum(len(record["annotations"]) for record in records) == len(given) - is_repetition(case)
    assert all(read(record)["image"].shape[0] == 3 for record in records)
    if case.severity == "repair":
        (line,) = (text for text in caplog.messages if KINDS[case.kind].remedy in text)
        assert case.says == () or case.says[0] in line
    if case.right:
        assert evaluate_perfect(registered)["bbox"]["AP"] == pytest.approx(100)


@every_case
def test_the_folder_is_refused_in_one_sentence_or_read_with_all_boxes(case: Case, broken: Path) -> None:
    """As `train --data` reads it: common classes of all splits first, then the records."""
    folder = find(broken)
    name = "broken_folder"
    try:
        common = folder.with_class_names(folder.class_names)
        register(name, lambda: common.split("train").annotations)
        records = load_dataset(name)
    except DatasetError as error:
        assert case.severity == "error" and str(error).endswith(".") and "\n" not in str(error)
        return
    finally:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
    given = json.loads((broken / "train.json").read_text())["annotations"]
    assert case.severity != "error" or case.kind in VALIDATION_KINDS
    assert sum(len(record["annotations"]) for record in records) == len(given) - is_repetition(case)


@every_case
def test_the_cleaned_copy_is_usable_and_lists_what_it_left_out(case: Case, broken: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    report = validate(broken)
    if report.splits[0].cleaned.obstacle is not None:
        assert case.kind.startswith("category-")
        with pytest.raises(DatasetError, match="No copy was written, since this is for a person to decide"):
            fix(report, tmp_path / "copy")
        assert not (tmp_path / "copy").exists()
        return
    changes = fix(report, tmp_path / "copy")["train"]
    assert before == {path: path.read_bytes() for path in broken.rglob("*") if path.is_file()}
    again = validate(tmp_path / "copy")
    assert again.usable and not again.count("repair")
    given = json.loads((broken / "train.json").read_text())["annotations"]
    kept = json.loads((tmp_path / "copy" / "annotations" / "instances_train.json").read_text())["annotations"]
    left_out = [change for change in changes if change.action == "removed"]
    of_boxes = [change for change in left_out if not change.entries[0].startswith(("image ", "entry 3"))]
    lost = sum(change.objects for change in left_out) + sum(len(change.entries) for change in of_boxes)
    assert len(given) - is_repetition(case) == len(kept) + lost
    if case.severity == "note":
        assert changes == []
    else:
        assert case.kind in {change.kind for change in changes}
        assert case.kind in (tmp_path / "copy" / "changes.txt").read_text()
    listed = json.loads((tmp_path / "copy" / "changes.json").read_text())["train"]
    assert [change["count"] for change in listed] == [len(change.entries) for change in changes]


def problems(report: Report, split: str = "val") -> dict[str, Problem]:
    """Return the problems of a split by their kinds."""
    return {found.problem.kind: found.problem for part in report.splits if part.name == split for found in part.found}


def test_the_same_photo_in_two_splits_is_found_by_its_pixels(tmp_path: Path) -> None:
    """Under another name and in another format; without opening images, only the same file is found."""
    write_data(tmp_path / "data")
    images = tmp_path / "data" / "images"
    Image.open(images / "train_2.png").save(images / "val_2.png", compress_level=0)
    assert (images / "train_2.png").read_bytes() != (images / "val_2.png").read_bytes()
    report = validate(tmp_path / "data")
    (problem,) = problems(report).values()
    assert (problem.kind, problem.severity, problem.count) == ("photo-in-two-splits", "error", 1)
    assert "image 2 (val_2.png) is the same photo as image 2 (train_2.png) of the split train" in problem.sentence
    assert validate(tmp_path / "data", open_images=False).usable
    (change,) = fix(report, tmp_path / "copy")["val"]
    assert (change.action, change.entries, change.objects) == ("removed", ["image 2 (val_2.png)"], 2)
    assert validate(tmp_path / "copy").usable


def test_the_same_file_in_two_splits_is_found_without_opening_it(tmp_path: Path) -> None:
    write_data(tmp_path)
    coco = json.loads((tmp_path / "val.json").read_text())
    coco["images"][1]["file_name"] = "train_2.png"
    (tmp_path / "val.json").write_text(json.dumps(coco))
    assert problems(validate(tmp_path, open_images=False))["photo-in-two-splits"].count == 1


@pytest.mark.parametrize(
    ("categories", "says"),
    [
        ([(1, "screw"), (2, "bolt")], "another order: screw, bolt and bolt, screw"),
        ([(1, "bolt"), (2, "nut")], "nut only here, screw only there"),
    ],
)
def test_classes_that_differ_between_files_are_an_error_and_in_a_folder_numbered_by_name(
    tmp_path: Path, categories: list[tuple[int, str]], says: str
) -> None:
    write_data(tmp_path)
    val = json.loads((tmp_path / "val.json").read_text())
    val["categories"] = [{"id": id_, "name": name} for id_, name in categories]
    (tmp_path / "val.json").write_text(json.dumps(val))
    files = validate([tmp_path / "train.json", tmp_path / "val.json"], image_root=tmp_path / "images")
    folder = validate(tmp_path)
    assert not files.usable and folder.usable
    assert says in problems(files)["classes-differ"].sentence
    assert says in problems(folder)["classes-by-name"].sentence


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{not json", "it is no JSON"),
        (b"", "it is no JSON"),
        (b"[]", "holds a JSON list"),
        (b'{"annotations": [], "categories": []}', 'has no "images"'),
        (b'{"images": []}', 'has no "categories"'),
        (b'{"images": {}, "annotations": [], "categories": []}', '"images" of'),
        ("{'n\u00e4me'}".encode("latin-1"), "is not in UTF-8"),
    ],
)
def test_files_that_are_no_data_set(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(DatasetError) as error:
        validate(tmp_path / "train.json")
    assert says in str(error.value) and "train.json" in str(error.value) and "\n" not in str(error.value)


def test_several_errors_at_once_are_cleaned_together(tmp_path: Path) -> None:
    """Corners are converted in all boxes that are left, although one has no box, one no image and one a NaN."""

    def spoil(coco: dict, folder: Path) -> None:
        CORNERS(coco, folder)
        coco["annotations"] += [{**annotation, "id": 10 + k} for k, annotation in enumerate(coco["annotations"])]
        coco["annotations"][0].pop("bbox")
        coco["annotations"][1]["image_id"] = 77
        coco["annotations"][2]["bbox"] = [1, 2, float("nan"), 4]

    write_broken(tmp_path / "data", spoil)
    changes = fix(validate(tmp_path / "data"), tmp_path / "copy")["train"]
    assert {change.kind: change.action for change in changes} == {
        "box-corners": "converted",
        "box-missing": "removed",
        "image-reference-unknown": "removed",
        "box-not-finite": "removed",
    }
    kept = json.loads((tmp_path / "copy" / "annotations" / "instances_train.json").read_text())["annotations"]
    assert [annotation["bbox"][2:] for annotation in kept] == [[18, 18]] * 9


def test_file_names_with_backslashes_are_read(tmp_path: Path) -> None:
    def move(coco: dict, folder: Path) -> None:
        (folder / "images" / "new").mkdir()
        (folder / "images" / "train_2.png").rename(folder / "images" / "new" / "train_2.png")
        coco["images"][1]["file_name"] = "new\\train_2.png"

    write_broken(tmp_path, move)
    report = validate(tmp_path / "train.json", image_root=tmp_path / "images")
    assert report.usable and problems(report, "train")["image-file-name-backslash"].severity == "repair"
    assert validate(tmp_path).usable


def test_a_photo_beyond_the_limit_of_pillow_is_named_with_the_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1220)  # Pillow refuses twice as many: 50x50 is more, 60x40 is not
    problem = problems(validate(tmp_path), "train")["image-large"]
    assert problem.count == 1 and "image 3 (train_3.png)" in problem.sentence and "MAX_IMAGE_PIXELS" in problem.sentence


def test_no_copy_is_written_where_no_image_can_be_used(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    for path in (tmp_path / "data" / "images").glob("val*"):
        path.unlink()
    with pytest.raises(DatasetError, match="no image of .*val.json can be used: In .*image 1 .*has no image file"):
        fix(validate(tmp_path / "data"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    (tmp_path / "old").mkdir()
    with pytest.raises(DatasetError, match="old exists: name a new folder"):
        fix(validate(tmp_path / "data", open_images=False), tmp_path / "old")


def test_a_training_split_without_objects_is_an_error_and_another_split_is_not(tmp_path: Path) -> None:
    write_broken(tmp_path, lambda coco, folder: coco.update(annotations=[]))
    assert problems(validate(tmp_path), "train")["object-none"].severity == "error"
    (tmp_path / "train.json").rename(tmp_path / "test.json")
    assert validate(tmp_path / "test.json", image_root=tmp_path / "images").usable


@pytest.mark.parametrize("table", ["images", "categories"])
def test_a_list_without_entries_is_refused(tmp_path: Path, table: str) -> None:
    write_broken(tmp_path, lambda coco, folder: coco.update({table: [], "annotations": []}))
    report = validate(tmp_path / "train.json", image_root=tmp_path / "images")
    assert not report.usable and f"no {table}" in report.text()


def test_what_is_right_in_another_form_stays_silent(tmp_path: Path) -> None:
    """A byte order mark, ids as text, gaps between ids, categories in no order, numbers as floats."""
    write_data(tmp_path)
    coco = json.loads((tmp_path / "train.json").read_text())
    for image in coco["images"]:
        image["id"] = f"photo {image['id']}"
    for annotation in coco["annotations"]:
        ids = {"image_id": f"photo {annotation['image_id']}", "category_id": {1: 90, 2: 4}[annotation["category_id"]]}
        annotation.update(ids, id=annotation["id"] * 10, bbox=list(map(float, annotation["bbox"])))
    coco["categories"] = [{"id": 90, "name": "bolt"}, {"id": 4, "name": "screw"}]
    (tmp_path / "train.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(coco).encode())
    report = validate(tmp_path / "train.json", image_root=tmp_path / "images")
    assert [found for split in report.splits for found in split.found] == []
    assert report.splits[0].statistics.classes == {"screw": 3, "bolt": 3}
