"""The blood-cell photos without leaks between the splits."""

import json
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from iopath.common.file_io import file_lock

from align_detr.data.coco import read_coco
from align_detr.data.register import load_records
from align_detr.errors import DatasetError
from align_detr.paths import SMALL_DATA_REMEDY


def register_distinct_bccd(name: str, split: str, folder: Path, cache: Path) -> None:
    """Register `split` ("val" or "test") of the photos in `folder` without those that overlap a photo of another split.

    The folder's `near_duplicates.json` lists the overlapping pairs. The remaining annotations are written to `cache`
    when they are first read. Registering a name again changes nothing.
    """
    if name in DatasetCatalog.list():
        return
    json_file, images = cache / f"{name}.json", folder / "images"

    def load() -> list[dict]:
        cache.mkdir(parents=True, exist_ok=True)
        text = json.dumps(_distinct(folder, split))
        with file_lock(str(json_file)):  # a file that is up to date stays: another process may be reading it
            if not json_file.is_file() or json_file.read_text(encoding="utf-8") != text:
                json_file.write_text(text, encoding="utf-8")
        return load_records(name, read_coco(json_file, images))

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(json_file=str(json_file), image_root=str(images), evaluator_type="coco")


def _distinct(folder: Path, split: str) -> dict:
    """Return the split's annotations in COCO's format without the images that have a partner in another split."""
    try:
        coco = json.loads((folder / f"instances_{split}.json").read_text(encoding="utf-8"))
        pairs = json.loads((folder / "near_duplicates.json").read_text(encoding="utf-8"))["pairs"]
    except OSError as error:
        raise DatasetError(
            f"The file {error.filename} of the data set bccd cannot be read ({error.strerror}): {SMALL_DATA_REMEDY}."
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
