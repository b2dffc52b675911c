"""What `validate` takes: a folder of any layout, a COCO file, or the name of a registered data set."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from align_detr.data.annotations import Annotations
from align_detr.data.coco import read_coco
from align_detr.data.layouts.coco_images import locate_images
from align_detr.data.layouts.find import find
from align_detr.errors import DatasetError


@dataclass(frozen=True)
class Source:
    """The splits of a data set as their files have them. `numbered_by_name`: training numbers the classes by name."""

    layout: str
    splits: dict[str, Annotations]
    numbered_by_name: bool


def read_sources(data: Sequence[str | Path], layout: str | None, image_root: Path | None) -> Source:
    """Return the splits of one folder, or of several files and registered names, which are one split each.

    layout: as in `find`. image_root: the folder of the images of COCO files, None to search for it. Raise
    DatasetError for what cannot be found or read.
    """
    if len(data) == 1 and (Path(data[0]).is_dir() or Path(data[0]).suffix in (".yaml", ".yml", ".data")):
        folder = find(data[0], layout=layout)
        splits = {name: split.annotations for name, split in folder.splits.items()}
        return Source(folder.layout, splits, numbered_by_name=True)
    splits = {}
    for name in data:
        label = Path(name).stem.removeprefix("instances_")
        label = label if label not in splits else str(name)
        splits[label] = _read_one(str(name), image_root)
    return Source("files" if len(data) > 1 else "file", splits, numbered_by_name=False)


def _read_one(name: str, image_root: Path | None) -> Annotations:
    path = Path(name).expanduser()
    if name in DatasetCatalog.list():
        return _read_registered(name)
    if not path.exists():
        near = get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.6)
        remedy = f"did you mean {' or '.join(near)}?" if near else "correct its path or name."
        raise DatasetError(f"{name} is neither a folder, nor a file, nor a registered data set: {remedy}")
    if path.is_dir():
        raise DatasetError(f"{path} is a folder beside other data: validate a folder alone.")
    annotations = read_coco(path, path.parent if image_root is None else image_root)
    return annotations if image_root is not None else locate_images(annotations, path.parent)


def _read_registered(name: str) -> Annotations:
    """Return the annotations of a registered data set, from its COCO file or from the records of its function."""
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    if json_file and image_root and Path(json_file).is_file():
        return read_coco(json_file, image_root)
    try:
        records = DatasetCatalog.get(name)
    except DatasetError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise DatasetError(
            f"The data set '{name}' cannot be read ({type(error).__name__}: {error}): correct its paths or the "
            "function that is registered for it."
        ) from error
    return _annotations_of(name, records, metadata.get("thing_classes"))


def _annotations_of(name: str, records: Sequence[dict[str, Any]], class_names: Sequence[str] | None) -> Annotations:
    """Return detectron2's records in COCO's form, with classes counted from 0."""
    objects = [(record, a) for record in records for a in record.get("annotations", ())]
    if class_names is None:
        class_names = [str(number) for number in range(1 + max((a["category_id"] for _, a in objects), default=-1))]
    annotations = [
        {
            **{key: value for key, value in a.items() if key != "bbox_mode"},
            "id": number,
            "image_id": record["image_id"],
            "bbox": _xywh(a),
        }
        for number, (record, a) in enumerate(objects, start=1)
    ]
    images = [
        {"id": r["image_id"], **{key: r[key] for key in ("file_name", "width", "height") if key in r}} for r in records
    ]
    categories = [{"id": number, "name": label} for number, label in enumerate(class_names)]
    return Annotations(images, annotations, categories, image_root=Path(), source=Path(name))


def _xywh(annotation: dict[str, Any]) -> list[float]:
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    return list(box if mode == BoxMode.XYWH_ABS else BoxMode.convert(list(box), mode, BoxMode.XYWH_ABS))
