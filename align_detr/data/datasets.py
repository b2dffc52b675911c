"""Loading and counting of registered data sets; a fault in their files is one sentence."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import load_coco_json
from detectron2.utils.file_io import PathManager

from align_detr.data.box_records import load_box_records
from align_detr.data.check_records import check_dataset, folder_remedy, take_part
from align_detr.data.coco import read_coco
from align_detr.data.lazy_records import count_objects, joined
from align_detr.data.register import InTwoForms, load_records
from align_detr.errors import DatasetError

Records = Sequence[dict[str, Any]]

# Records by data set and whether they are complete; None outside of `datasets_read_once`.
_kept: ContextVar[dict[tuple[str, bool], Records] | None] = ContextVar("kept", default=None)


@contextmanager
def datasets_read_once() -> Iterator[None]:
    """Keep the records of every data set until the end: COCO's annotations take tens of seconds to read.

    Inside, a name stands for one set of records, which nobody changes; register no data set anew.
    """
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def as_names(names: str | Iterable[str]) -> list[str]:
    """Return a list of data set names from one name or several (a LazyConfig gives a ListConfig)."""
    listed = [names] if isinstance(names, str) else [str(name) for name in names]
    if not listed:
        raise DatasetError("The config names no data set: set dataloader.train.dataset and dataloader.test.dataset.")
    return listed


def load_dataset(names: str | Iterable[str], *, complete: bool = False) -> Records:
    """Return the records of one or several registered data sets, in detectron2's format, after `check_dataset`.

    Those of a COCO file, or of a folder with one, are made when they are asked for, without segmentations and
    keypoints, which no box detector uses; with `complete` they are a list, with all that the file has. Others are what
    their function gives.
    Raise DatasetError for a name that is not registered, a missing file or folder, annotations that cannot be used,
    and data sets whose classes differ.
    """
    names = as_names(names)
    records = joined([_records(name, complete) for name in names])
    _compare_classes({name: MetadataCatalog.get(name).get("thing_classes") for name in names})
    return records


def count_images(names: str | Iterable[str]) -> int:
    """Return the number of images of one or several data sets, which are loaded for it.

    Raise DatasetError as `load_dataset` does.
    """
    return len(load_dataset(names))


def count_training_images(names: str | Iterable[str], *, filter_empty: bool = False) -> int:
    """Return the number of images that training sees: with `filter_empty`, those with objects.

    Raise DatasetError as `load_dataset` does, and if training has no box at all.
    """
    names = as_names(names)
    records = load_dataset(names)
    require_objects(names, records)
    return int((count_objects(records) > 0).sum()) if filter_empty else len(records)


def require_objects(names: str | Iterable[str], records: Records) -> None:
    """Raise DatasetError if training would leave out every box of the records of the data sets `names`."""
    if not take_part(records):
        raise DatasetError(
            f"The training data {', '.join(as_names(names))} has no box that takes part: check that the annotations "
            "are there, are not all crowd regions, and have a width and height."
        )


def check_num_classes(model_num_classes: int, dataset_name: str) -> None:
    """Raise DatasetError unless the model has as many classes as the data set, which is loaded if it never was."""
    classes = known_classes(dataset_name)
    if classes is not None and model_num_classes != len(classes):
        raise DatasetError(
            f"The model has {model_num_classes} classes, but the data set '{dataset_name}' has {len(classes)}: set "
            f"model.head.num_classes={len(classes)} (in an R-CNN, model.roi_heads.num_classes)."
        )


def _records(name: str, complete: bool) -> Records:
    """Return the records of one data set: those that are kept, or read and checked now."""
    kept = _kept.get()
    complete = complete and _has_two_forms(name)
    forms = kept or {}
    for form in (complete, True):  # complete records serve in place of the others
        if (name, form) in forms:
            return forms[name, form]
    records = _read(name, complete)
    if (name, False) not in forms:  # whose check was of the same file
        check_dataset(name, records)
    if kept is not None:
        kept[name, complete] = records
    return records


def check_same_classes(names: Sequence[str]) -> None:
    """Raise DatasetError for data sets with other classes than the first, or with the same in another order.

    Those that never were loaded are. A data set that names no classes passes.
    """
    _compare_classes({name: known_classes(name) for name in names})


def known_classes(name: str) -> Sequence[str] | None:
    """Return the classes of a data set, which is loaded if it never was: they become known with that."""
    if MetadataCatalog.get(name).get("thing_classes") is None:
        load_dataset(name)
    return MetadataCatalog.get(name).get("thing_classes")


def _compare_classes(known: Mapping[str, Sequence[str] | None]) -> None:
    listed = {name: list(classes) for name, classes in known.items() if classes is not None}
    for name, classes in list(listed.items())[1:]:
        first = next(iter(listed))
        if classes != listed[first]:
            raise DatasetError(
                f"The data sets '{first}' and '{name}' have different classes and cannot be used together, "
                f"{describe_difference(listed[first], classes)}: give both the same categories, with the same ids."
            )


def describe_difference(one: Sequence[str], other: Sequence[str]) -> str:
    """Return the first difference between two lists of classes, as a part of a sentence."""
    index = next((k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    if index < min(len(one), len(other)):
        return f"as class {index} is '{one[index]}' in the first and '{other[index]}' in the second"
    return f"as the first has {len(one)} classes and the second {len(other)}"


def _is_coco(name: str) -> bool:
    """Return whether a data set is registered by `register_coco_instances`."""
    return getattr(DatasetCatalog.data.get(name), "__module__", None) == load_coco_json.__module__


def _has_two_forms(name: str) -> bool:
    """Return whether a data set has other records where boxes alone are needed."""
    return _is_coco(name) or isinstance(DatasetCatalog.data.get(name), InTwoForms)


def _read(name: str, complete: bool) -> Records:
    """Return what detectron2 reads for `name`; raise DatasetError for any failure."""
    registered = DatasetCatalog.list()
    if name not in registered:
        near = difflib.get_close_matches(name, registered, n=3, cutoff=0.5)
        names = f"use {' or '.join(near)}" if near else f"use one of {', '.join(sorted(registered))}"
        raise DatasetError(
            f"The data set '{name}' is not registered: {names}, or register it with "
            "detectron2.data.datasets.register_coco_instances."
        )
    try:
        if _is_coco(name):
            return _read_coco_instances(name, complete)
        function = DatasetCatalog.data.get(name)
        return function.read_boxes() if isinstance(function, InTwoForms) and not complete else DatasetCatalog.get(name)
    except DatasetError:
        raise
    except MemoryError as error:
        raise DatasetError(
            f"The data set '{name}' does not fit into memory: free some, or use a smaller data set."
        ) from error
    except Exception as error:  # a registered function can raise anything
        raise DatasetError(
            f"The data set '{name}' cannot be loaded ({type(error).__name__}: {error}): correct the function that is "
            "registered for it."
        ) from error


def _read_coco_instances(name: str, complete: bool) -> Records:
    """Return the records of a data set that detectron2 would read from a COCO file."""
    metadata = MetadataCatalog.get(name)
    if not PathManager.isfile(metadata.json_file):
        raise DatasetError(
            f"The annotation file {metadata.json_file} of the data set '{name}' does not exist: "
            f"{folder_remedy(metadata.json_file)}."
        )
    path, image_root = Path(PathManager.get_local_path(metadata.json_file)), Path(metadata.image_root)
    return load_records(name, read_coco(path, image_root)) if complete else load_box_records(name, path, image_root)
