"""The blood-cell photos without leaks between the splits."""

import json
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from iopath.common.file_io import file_lock

from align_detr.errors import DatasetError


def register_distinct_bccd(name: str, split: str, folder: Path, cache: Path) -> None:
    """Registers `split` ("val" or "test") of the photos in `folder` without those that show, in part, what another
    split shows: its file `near_duplicates.json` lists the pairs. Registering a name again changes nothing.

    The annotations that are left are written to the cache folder when they are first asked for.
    """
    if name in DatasetCatalog.list():
        return
    json_file, images = cache / f"{name}.json", folder / "images"

    def load() -> list[dict]:
        cache.mkdir(parents=True, exist_ok=True)
        with file_lock(str(json_file)):
            json_file.write_text(json.dumps(_distinct(folder, split)), encoding="utf-8")
        return load_coco_json(str(json_file), str(images), name)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(json_file=str(json_file), image_root=str(images), evaluator_type="coco")


def _distinct(folder: Path, split: str) -> dict:
    """The annotations of the split without the images that have a partner in another split."""
    try:
        coco = json.loads((folder / f"instances_{split}.json").read_text(encoding="utf-8"))
        pairs = json.loads((folder / "near_duplicates.json").read_text(encoding="utf-8"))["pairs"]
    except OSError as error:
        raise DatasetError(
            f"{error.filename} of the data set bccd does not exist: set ALIGN_DETR_DATA to the folder that holds it."
        ) from error
    leaked = {
        one["file_name"]
        for pair in pairs
        for one, other in ((pair["a"], pair["b"]), (pair["b"], pair["a"]))
        if one["split"] == split != other["split"]
    }
    images = [image for image in coco["images"] if image["file_name"] not in leaked]
    kept = {image["id"] for image in images}
    annotations = [a for a in coco["annotations"] if a["image_id"] in kept]
    return {**coco, "images": images, "annotations": annotations}
