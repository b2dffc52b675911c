"""Conversion of a data set from any layout into COCO's, Pascal VOC's, YOLO's or shards."""

import re
from functools import partial
from pathlib import Path

from detectron2.data import DatasetCatalog

from align_detr.data.annotations import Annotations
from align_detr.data.layouts import DataFolder, Split, coco_writer, find, shards_writer, voc_writer, yolo_writer
from align_detr.data.layouts.classes import with_class_names
from align_detr.data.layouts.names import split_in_name
from align_detr.data.new_folder import new_folder, require_apart
from align_detr.data.problems import require_sound
from align_detr.data.registered import read_plain
from align_detr.errors import DatasetError

WRITERS = {
    "coco": coco_writer.write,
    "voc": voc_writer.write,
    "yolo": yolo_writer.write,
    "shards": shards_writer.write,
}
_JSON = ("coco", "shards")  # layouts that hold every text
_NO_TEXT = re.compile("[\ud800-\udfff]")  # lone surrogates, which UTF-8 has not
_NO_LINE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")  # nor XML, or ends of lines


def convert(
    source: str | Path,
    *,
    to: str,
    out: str | Path,
    layout: str | None = None,
    val_fraction: float | None = None,
    split_seed: int = 0,
    shard_megabytes: float = shards_writer.MEGABYTES,
    shard_url: str | None = None,
) -> DataFolder:
    """Write the data set in the folder `source`, with copies of its images, into the folder `out`; return it.

    source: a folder, or the name of a registered data set, which becomes the split that its name states, else "train".
    to: one of WRITERS. layout: of the source, if its folder holds several. val_fraction: of the training images, which
    become a validation split if there is none. shard_megabytes, shard_url: as in `shards_writer.write`. All splits,
    classes in their order and photos without objects are kept; what a layout has no place for is in its writer's
    docstring, and counted in the log.
    Raise DatasetError for a source that cannot be used, for an `out` that holds files already, is below the source or
    cannot be written, and for names that the layout cannot hold; then nothing is left in `out`.
    """
    if to not in WRITERS:
        raise DatasetError(f"There is no layout '{to}': use one of {', '.join(WRITERS)}.")
    target = Path(out).expanduser()
    require_apart(target, [source])
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DatasetError(f"{target} holds files already: name a new folder, or empty it.")
    found = _find(source, layout)
    if val_fraction is not None:
        found = found.with_validation(fraction=val_fraction, seed=split_seed)
    class_names = found.class_names
    splits = {
        name: with_class_names(require_sound(split.annotations), class_names) for name, split in found.splits.items()
    }
    for annotations in splits.values():
        _check_names(annotations, to)
    with new_folder(target) as folder:
        if to == "shards":
            shards_writer.write(splits, folder, megabytes=shard_megabytes, url=shard_url)
        else:
            WRITERS[to](splits, folder)
    return find(target, layout=to)


def _find(source: str | Path, layout: str | None) -> DataFolder:
    """Return the data set in a folder, or the registered one of this name."""
    name = str(source)
    if name not in DatasetCatalog.list() or Path(source).exists():
        return find(source, layout=layout)
    split = split_in_name(name) or "train"
    return DataFolder(Path(name), "registered", {split: Split(split, Path(name), partial(read_plain, name))})


def _check_names(annotations: Annotations, to: str) -> None:
    """Raise DatasetError for a name of a class or an image that the layout `to` would lose or change."""
    for name in annotations.class_names:
        if (_NO_TEXT if to in _JSON else _NO_LINE).search(name) or (to not in _JSON and name != name.strip()):
            raise DatasetError(
                f"{annotations.source} has the class {name!r}, whose name the layout '{to}' cannot hold: rename it."
            )
    for image in annotations.images:
        if (_NO_LINE if to == "voc" else _NO_TEXT).search(image["file_name"]):
            raise DatasetError(
                f"{annotations.source} has the image {image['file_name']!r}, whose name the layout '{to}' cannot hold: "
                "rename it."
            )
