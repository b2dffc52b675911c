"""Built-in names, and the small real data sets with the counts that their READMEs state."""

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.data import DetrMapper, load_dataset, register_builtin_datasets
from support.paths import require_data

# name: images, boxes, crowd regions, classes
REAL = {
    "coco_mini_train": (96, 1094, 13, 80),
    "coco_mini_val": (48, 465, 7, 80),
    "bccd_train": (205, 2804, 0, 3),
    "bccd_val": (87, 1137, 0, 3),
    "bccd_test": (72, 945, 0, 3),
    "raccoon_train": (160, 173, 0, 1),
    "raccoon_val": (40, 44, 0, 1),
}


def test_registering_again_changes_nothing() -> None:
    before = {name: MetadataCatalog.get(name).as_dict() for name in DatasetCatalog.list()}
    register_builtin_datasets()
    register_builtin_datasets()
    assert {name: MetadataCatalog.get(name).as_dict() for name in DatasetCatalog.list()} == before
    assert {*REAL, "digits_train", "digits_val"} <= set(before)


@pytest.mark.parametrize("name", REAL)
def test_real_data_set(name: str) -> None:
    require_data(name.rpartition("_")[0])
    num_images, num_boxes, num_crowd, num_classes = REAL[name]
    records = load_dataset(name)
    crowd = [bool(a.get("iscrowd", 0)) for r in records for a in r["annotations"]]
    assert (len(records), crowd.count(False), crowd.count(True)) == (num_images, num_boxes, num_crowd)
    assert len(MetadataCatalog.get(name).thing_classes) == num_classes
    mapped = DetrMapper(augmentations=[], is_train=True)(records[0])
    assert mapped["image"].shape[1:] == (records[0]["height"], records[0]["width"])
    assert len(mapped["instances"]) == sum(not a["iscrowd"] for a in records[0]["annotations"])
