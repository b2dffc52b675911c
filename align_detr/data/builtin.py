"""Data sets that need no registration by the user: digits in photos, small real ones, and COCO's panoptic one."""

import os

from detectron2.data import DatasetCatalog
from detectron2.data.datasets import register_coco_instances

from align_detr.data.bccd import register_distinct_bccd
from align_detr.data.digits import register_builtin_digits
from align_detr.data.digits_panoptic import register_builtin_digits_panoptic
from align_detr.data.panoptic import register_panoptic
from align_detr.paths import cache_folder, data_path

_SPLITS = {"coco_mini": ("train", "val"), "bccd": ("train", "val", "test"), "raccoon": ("train", "val")}


def register_builtin_datasets() -> None:
    """Register digits_{train,val}, the same with masks (digits_masks_{train,val}, digits_panoptic_{train,val}),
    coco_mini_{train,val}, bccd_{train,val,test}, raccoon_{train,val}, bccd_{val,test}_distinct (without the images that
    overlap another split's), and coco_panoptic_{train,val} (COCO 2017 below DETECTRON2_DATASETS, as detectron2's).

    No file is read. Registered names stay as they are: detectron2 v0.5 refuses a second registration.
    """
    register_builtin_digits()
    register_builtin_digits_panoptic()
    coco = os.path.join(os.path.expanduser(os.environ.get("DETECTRON2_DATASETS", "datasets")), "coco")
    for split in ("train", "val"):
        register_panoptic(
            f"coco_panoptic_{split}",
            panoptic_json=os.path.join(coco, "annotations", f"panoptic_{split}2017.json"),
            panoptic_root=os.path.join(coco, f"panoptic_{split}2017"),
            image_root=os.path.join(coco, f"{split}2017"),
        )
    for split in ("val", "test"):
        register_distinct_bccd(f"bccd_{split}_distinct", split, data_path("bccd"), cache_folder())
    for dataset, splits in _SPLITS.items():
        folder = data_path(dataset)
        for split in splits:
            name = f"{dataset}_{split}"
            if name not in DatasetCatalog.list():
                annotations = folder / f"instances_{split}.json"
                register_coco_instances(name, {}, str(annotations), str(folder / "images"))
