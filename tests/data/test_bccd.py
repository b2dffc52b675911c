"""Blood-cell splits without images that overlap another split's, on a hand-made data set."""

import json
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.data import load_dataset
from align_detr.data.bccd import register_distinct_bccd
from align_detr.errors import DatasetError


def write(folder: Path) -> None:
    """Write four images of `val`: a has a partner in `train`, b one in `val` itself, c a pair of other splits."""
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    images = [{"id": i, "file_name": name, "width": 8, "height": 8} for i, name in enumerate(names)]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16, "iscrowd": 0} for i in range(4)
    ]
    coco = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cell"}]}
    pairs = [
        {"a": {"split": "train", "file_name": "x.jpg"}, "b": {"split": "val", "file_name": "a.jpg"}},
        {"a": {"split": "val", "file_name": "b.jpg"}, "b": {"split": "val", "file_name": "d.jpg"}},
        {"a": {"split": "test", "file_name": "c.jpg"}, "b": {"split": "train", "file_name": "y.jpg"}},
    ]
    folder.mkdir()
    (folder / "instances_val.json").write_text(json.dumps(coco))
    (folder / "near_duplicates.json").write_text(json.dumps({"pairs": pairs}))


def test_images_that_another_split_shows_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "bccd")
    name = "distinct_cells"
    register_distinct_bccd(name, "val", tmp_path / "bccd", tmp_path / "cache")
    register_distinct_bccd(name, "val", tmp_path / "elsewhere", tmp_path / "cache")
    records = DatasetCatalog.get(name)
    assert [Path(record["file_name"]).name for record in records] == ["b.jpg", "c.jpg", "d.jpg"]
    assert [len(record["annotations"]) for record in records] == [1, 1, 1]
    written = Path(MetadataCatalog.get(name).json_file)
    assert len(json.loads(written.read_text())["annotations"]) == 3


def test_annotations_are_written_anew_only_if_they_change(tmp_path: Path) -> None:
    write(tmp_path / "bccd")
    name = "rewritten_cells"
    register_distinct_bccd(name, "val", tmp_path / "bccd", tmp_path)
    DatasetCatalog.get(name)
    written = Path(MetadataCatalog.get(name).json_file)
    before = written.stat().st_mtime_ns
    DatasetCatalog.get(name)
    assert written.stat().st_mtime_ns == before
    (tmp_path / "bccd" / "near_duplicates.json").write_text(json.dumps({"pairs": []}))
    assert len(DatasetCatalog.get(name)) == 4


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    register_distinct_bccd("no_cells", "val", tmp_path / "nothing", tmp_path)
    with pytest.raises(DatasetError, match=r"instances_val\.json of the data set bccd cannot be read .*set ALIGN_DETR"):
        load_dataset("no_cells")
