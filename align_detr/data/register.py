"""Registration of data sets of any layout in detectron2's catalogs."""

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.data.annotations import Annotations
from align_detr.data.problems import require_sound
from align_detr.data.records import class_indices, to_records
from align_detr.errors import DatasetError


def register(name: str, source: Annotations | Callable[[], Annotations]) -> None:
    """Register annotations, or a function that reads them, under `name`; a name registered before is replaced.

    They are read, repaired and checked when the data set is loaded.
    """
    read = (lambda: source) if isinstance(source, Annotations) else source
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)

    def load() -> list[dict[str, Any]]:
        return load_records(name, read())

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="coco")


def load_records(name: str, annotations: Annotations) -> list[dict[str, Any]]:
    """Return the records of annotations, and set the classes of the data set `name`.

    Raise DatasetError for annotations that cannot be used.
    """
    sound = require_sound(annotations)
    metadata, classes = MetadataCatalog.get(name), sound.class_names
    known = metadata.get("thing_classes")
    if known is not None and list(known) != classes:
        raise DatasetError(
            f"The data set '{name}' has the classes {classes} in {sound.source}, but {list(known)} in its metadata: "
            "register it without thing_classes, or with the file's in the order of their ids."
        )
    indices = class_indices(sound)
    if metadata.get("thing_dataset_id_to_contiguous_id") is None:
        metadata.set(thing_dataset_id_to_contiguous_id=indices)
    metadata.set(thing_classes=known or classes)
    return to_records(sound)
