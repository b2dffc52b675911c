"""Conversion of a data set from any layout into COCO's, Pascal VOC's or YOLO's."""

from pathlib import Path

from align_detr.data.layouts import DataFolder, coco_writer, find, voc_writer, yolo_writer
from align_detr.data.layouts.classes import with_class_names
from align_detr.data.problems import require_sound
from align_detr.errors import DatasetError

WRITERS = {"coco": coco_writer.write, "voc": voc_writer.write, "yolo": yolo_writer.write}


def convert(
    source: str | Path,
    *,
    to: str,
    out: str | Path,
    layout: str | None = None,
    val_fraction: float | None = None,
    split_seed: int = 0,
) -> DataFolder:
    """Write the data set in the folder `source`, with copies of its images, into the folder `out`; return it.

    to: one of WRITERS. layout: of the source, if its folder holds several. val_fraction: of the training images, which
    become a validation split if there is none. All splits, classes in their order and photos without objects are
    kept; what a layout has no place for is in its writer's docstring, and counted in the log.
    Raise DatasetError for a source that cannot be used and for an `out` that holds files already.
    """
    if to not in WRITERS:
        raise DatasetError(f"There is no layout '{to}': use one of {', '.join(WRITERS)}.")
    target = Path(out).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target} holds files already: name a new folder, or empty it.")
    found = find(source, layout=layout)
    if val_fraction is not None:
        found = found.with_validation(fraction=val_fraction, seed=split_seed)
    class_names = found.class_names
    splits = {
        name: with_class_names(require_sound(split.annotations), class_names) for name, split in found.splits.items()
    }
    target.mkdir(parents=True, exist_ok=True)
    WRITERS[to](splits, target)
    return find(target, layout=to)
