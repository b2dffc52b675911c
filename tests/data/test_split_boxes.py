"""COCO files in folders: detectors of boxes get their columns, with the records that the whole file gives."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.data import box_records, find, load_dataset, records_cache
from align_detr.data.coco_boxes import parse_boxes
from align_detr.data.layouts import DataFolder
from align_detr.data.lazy_records import JoinedRecords, Records
from align_detr.errors import DatasetError
from support import trees
from support.datasets import forgotten

NAMES = "parts_train", "parts_val"
POLYGON = [1, 1, 9, 1.5, 9, 9]


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Forget the registered names, and keep files of any size, beside the data or in a cache of the test's own."""
    monkeypatch.setattr(records_cache, "SMALLEST", 0)
    monkeypatch.setenv("ALIGN_DETR_CACHE", str(tmp_path / "cache"))
    with forgotten(*NAMES):
        yield


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return the list of files that are parsed for their boxes from now on."""
    paths: list[Path] = []

    def count(content: bytes, path: Path, image_root: Path) -> Any:
        paths.append(path)
        return parse_boxes(content, path, image_root)

    monkeypatch.setattr(box_records, "parse_boxes", count)
    return paths


def content(photos: str, **values: object) -> dict[str, Any]:
    """Return photos in another order than that of their ids, with polygons, and a class of each split alone."""
    made = trees.coco(("abc" * len(photos))[: len(photos)])
    for image, name in zip(made["images"], photos, strict=True):
        image["file_name"] = f"{name}.jpg"
    made["images"].reverse()
    for annotation in made["annotations"]:
        annotation.update({"segmentation": [POLYGON], **values})
    made["categories"].append({"id": 9, "name": f"only {photos}", "supercategory": "parts"})
    made["categories"].append({"id": 0, "name": "parts", "supercategory": "none"})
    return made


def write(root: Path, **splits: dict[str, Any]) -> Path:
    for split, made in splits.items():
        trees.write_json(root / f"annotations/instances_{split}2017.json", made)
        for image in made["images"]:
            trees.write_text(root / f"{split}2017" / image["file_name"], "no image is opened")
    return root


def boxes_only(records: Any) -> list[dict[str, Any]]:
    return [
        {**record, "annotations": [{k: v for k, v in a.items() if k != "segmentation"} for a in record["annotations"]]}
        for record in records
    ]


def load_both(folder: DataFolder, name: str) -> Any:
    """Return the records of the boxes, after a comparison of them and of the classes with those of the whole file."""
    folder.register("parts")
    complete = load_dataset(name, complete=True)
    assert isinstance(complete, list) and all("segmentation" in a for record in complete for a in record["annotations"])
    metadata = MetadataCatalog.get(name)
    expected = metadata.thing_classes, metadata.thing_dataset_id_to_contiguous_id, metadata.image_root
    folder.register("parts")
    records = load_dataset(name)
    assert repr(boxes_only(records)) == repr(boxes_only(complete)) and len(records) > 0
    metadata = MetadataCatalog.get(name)
    assert (metadata.thing_classes, metadata.thing_dataset_id_to_contiguous_id, metadata.image_root) == expected
    return records


def whole(folder: DataFolder) -> DataFolder:
    """Return the same folder without columns."""
    splits = {name: type(split)(name, split.source, split.read) for name, split in folder.splits.items()}
    return DataFolder(folder.root, folder.layout, splits)


def test_splits_have_the_records_and_classes_of_the_whole_files(tmp_path: Path, parsed: list[Path]) -> None:
    """Numbered in common: the validation split's own class becomes the last, a heading without objects is none."""
    root = write(tmp_path / "data", train=content("abc"), val=content("de"))
    found = find(root)
    expected = ["screw", "bolt", "only abc", "only de"]
    assert found.class_names == expected == whole(find(root)).class_names and len(parsed) == 2
    assert [split.num_images for split in found.splits.values()] == [3, 2]
    for name in NAMES:
        assert isinstance(load_both(find(root).with_class_names(expected), name), Records)
    assert len(parsed) == 2, "of the cache beside the data"
    assert "annotations" not in vars(found.splits["train"]), "the whole of a file is not read"


def test_a_split_by_seed_is_that_of_the_whole_file(tmp_path: Path) -> None:
    root = write(tmp_path / "data", train=content("abcdefgh"))
    divided = find(root).with_validation(fraction=0.3, seed=3)
    assert divided.class_names == whole(find(root)).with_validation(fraction=0.3, seed=3).class_names
    assert [split.num_images for split in divided.splits.values()] == [6, 2]
    for name in NAMES:
        records = load_both(divided.with_class_names(divided.class_names), name)
        assert isinstance(records, JoinedRecords)


def test_a_class_of_objects_that_the_names_lack_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data", train=content("ab"))
    find(root).with_class_names(["screw"]).register("parts")
    sentences = []
    for complete in (True, False):
        with pytest.raises(DatasetError, match="has objects of the class 'bolt'") as error:
            load_dataset("parts_train", complete=complete)
        sentences.append(str(error.value))
    assert sentences[0] == sentences[1]


def test_images_of_other_names_than_in_the_file_are_found_from_the_whole_of_it(tmp_path: Path) -> None:
    made = content("ab")
    for image in made["images"]:
        image["file_name"] = f"/elsewhere/{image['file_name']}"
    root = tmp_path / "data"
    trees.write_json(root / "train.json", made)
    trees.write_images(root / "deep/below", "ab")
    found = find(root)
    assert found.splits["train"].boxes is None and not [*root.rglob("train.json.*[0-9]")]
    records = load_both(found, "parts_train")
    assert {Path(record["file_name"]).parent for record in records} == {root / "deep/below"}


def test_images_that_moved_since_the_last_start_are_found(tmp_path: Path, parsed: list[Path]) -> None:
    root = write(tmp_path / "data", train=content("ab"))
    assert find(root).splits["train"].boxes is not None
    (root / "train2017").rename(root / "images")
    records = load_both(find(root), "parts_train")
    assert {Path(record["file_name"]).parent for record in records} == {root / "images"} and len(parsed) == 1
    (root / "images").rename(root / "elsewhere")
    assert find(root).splits["train"].boxes is None
    records = load_both(find(root), "parts_train")
    assert {Path(record["file_name"]).parent for record in records} == {root / "elsewhere"}


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a box of three": lambda made: made["annotations"][0].update(bbox=[1, 2, 3]),
    "no categories": lambda made: made.pop("categories"),
    "ids twice, boxes of three": lambda made: [a.update(id=1, bbox=[1, 2, 3]) for a in made["annotations"]],
    "no size, no file": lambda made: made["images"].append({"id": 99, "file_name": "absent.png"}),
    "ignored": lambda made: made["annotations"][0].update(ignore=1),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_errors_are_those_of_the_whole_file(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    made = content("ab")
    write(tmp_path / "data", train=made)
    change(made)
    trees.write_json(tmp_path / "data/annotations/instances_train2017.json", made)
    for use in (lambda folder: folder.class_names, lambda folder: load_dataset(folder.register("parts")[0])):
        sentences = []
        for of in (whole, lambda folder: folder):
            with pytest.raises(DatasetError) as error:
                use(of(find(tmp_path / "data")))
            sentences.append(str(error.value))
        assert sentences[0] == sentences[1]


def test_a_doubtful_box_is_logged_once_at_every_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = content("ab")
    made["annotations"][0]["bbox"] = [500, 500, 5, 5]
    root = write(tmp_path / "data", train=made)
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = find(root)
            load_dataset(found.with_class_names(found.class_names).register("parts"))
        assert caplog.text.count("outside of its image") == 1
        (path,) = root.glob("annotations/*.json")
        assert json.loads(path.read_text()) == made


def test_others_than_our_loaders_get_the_whole_from_the_catalog(tmp_path: Path) -> None:
    find(write(tmp_path / "data", train=content("ab"))).register("parts")
    assert all("segmentation" in a for record in DatasetCatalog.get("parts_train") for a in record["annotations"])
