"""Registration of data sets of any layout in detectron2's catalogs."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from align_detr.data.annotations import Annotations, class_names
from align_detr.data.coco import collection_paused
from align_detr.data.problems import require_sound
from align_detr.data.records import class_indices, to_records
from align_detr.data.split_boxes import SplitBoxes
from align_detr.errors import DatasetError

_registered_by_configs: dict[str, Callable[[], Any]] = {}


@dataclass(frozen=True)
class InTwoForms:
    """A registered function that gives the complete records, and has another one that gives those of the boxes."""

    read: Callable[[], list[dict[str, Any]]]
    read_boxes: Callable[[], Sequence[dict[str, Any]]]

    def __call__(self) -> list[dict[str, Any]]:
        """Return the complete records."""
        return self.read()


def register(
    name: str,
    source: Annotations | Callable[[], Annotations],
    read_boxes: Callable[[], SplitBoxes | None] = lambda: None,
) -> None:
    """Register annotations, or a function that reads them, under `name`; a name registered before is replaced.

    They are read, repaired and checked when the data set is loaded. Where boxes alone are needed, they are those of
    `read_boxes`, if it gives any.
    """
    read = (lambda: source) if isinstance(source, Annotations) else source
    _forget(name)

    def load() -> list[dict[str, Any]]:
        annotations = read()
        MetadataCatalog.get(name).set(image_root=str(annotations.image_root))
        return load_records(name, annotations)

    def load_boxes() -> Sequence[dict[str, Any]]:
        boxes = read_boxes()
        if boxes is None:
            return load()
        boxes.warn()
        MetadataCatalog.get(name).set(image_root=str(boxes.image_root))
        set_classes(name, boxes.columns.categories, boxes.source)
        return boxes.records()

    DatasetCatalog.register(name, InTwoForms(load, load_boxes))
    MetadataCatalog.get(name).set(evaluator_type="coco")


@contextmanager
def registration_of_configs() -> Iterator[None]:
    """Let a config file that is loaded again in a process register its data sets again.

    Inside, a name that a config registered before is registered anew, and one that was registered elsewhere by the same
    line with the same values stays. detectron2's AssertionError for a name that is in use otherwise remains. A config
    that loads another one is inside already.
    """
    if "register" in vars(DatasetCatalog):
        yield
        return
    register_once = DatasetCatalog.register

    def register_again(name: str, function: Callable[[], Any]) -> None:
        known = DatasetCatalog.data.get(name)
        if known is not None and _identity(known) == _identity(function):
            return
        if known is not None and _registered_by_configs.get(name) is known:
            _forget(name)
        register_once(name, function)
        _registered_by_configs[name] = function

    DatasetCatalog.register = register_again
    try:
        yield
    finally:
        del DatasetCatalog.register  # the class's own shows again


def _forget(name: str) -> None:
    DatasetCatalog.data.pop(name, None)
    MetadataCatalog.data.pop(name, None)


def _identity(function: Callable[[], Any]) -> tuple:
    """Return what makes two functions made by one line of code do the same: the line, and the values in it."""
    code = getattr(function, "__code__", None)
    if code is None:
        return (function,)
    values = [repr(cell.cell_contents) for cell in function.__closure__ or ()]
    return code.co_filename, code.co_firstlineno, code.co_code, values, repr(function.__defaults__)


def load_records(name: str, annotations: Annotations) -> list[dict[str, Any]]:
    """Return the records of annotations, and set the classes of the data set `name`.

    Raise DatasetError for annotations that cannot be used.
    """
    with collection_paused():
        sound = require_sound(annotations)
        records = to_records(sound)
    set_classes(name, sound.categories, sound.source)
    return records


def set_classes(name: str, categories: Sequence[dict[str, Any]], source: Path) -> None:
    """Set the classes of a data set; raise DatasetError if other ones are known of it."""
    metadata, classes = MetadataCatalog.get(name), class_names(categories)
    known = metadata.get("thing_classes")
    if known is not None and list(known) != classes:
        raise DatasetError(
            f"The data set '{name}' has the classes {classes} in {source}, but {list(known)} in its metadata: "
            "register it without thing_classes, or with the file's in the order of their ids."
        )
    if metadata.get("thing_dataset_id_to_contiguous_id") is None:
        metadata.set(thing_dataset_id_to_contiguous_id=class_indices(categories))
    metadata.set(thing_classes=known or classes)
