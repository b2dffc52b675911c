"""Registration of data sets of any layout in detectron2's catalogs."""

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.data.annotations import Annotations
from align_detr.data.problems import require_sound
from align_detr.data.records import class_indices, to_records


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
    MetadataCatalog.get(name).set(
        thing_classes=sound.class_names, thing_dataset_id_to_contiguous_id=class_indices(sound)
    )
    return to_records(sound)
