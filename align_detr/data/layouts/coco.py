"""COCO's layout in a folder, with the variants of Roboflow and of other tools that write COCO's JSON."""

import re
from functools import partial
from pathlib import Path

from align_detr.data.annotations import Annotations
from align_detr.data.box_records import read_split_boxes
from align_detr.data.coco import read_coco
from align_detr.data.layouts.coco_images import locate_images
from align_detr.data.layouts.folder import Split
from align_detr.data.layouts.names import SPLITS, split_of
from align_detr.data.layouts.shards import is_index
from align_detr.data.split_boxes import SplitBoxes
from align_detr.errors import DatasetError
from align_detr.image_files import files_below

SIGNS = "JSON files such as annotations/instances_train.json or train/_annotations.coco.json"

_DEPTH = 3  # folders below the root in which JSON files are looked for, the file included
_HEAD = 1 << 16  # bytes that are read to recognise a file; smaller ones are read as a whole
_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


def find_splits(root: Path) -> list[Split]:
    """Return the splits of the COCO files below `root` (or of the file `root`), [] without any.

    Raise DatasetError for two files of the same split.
    """
    folder = root if root.is_dir() else root.parent
    files: dict[str, Path] = {}
    for path in _coco_files(root):
        name = split_of(path, folder) or "train"
        if name in files:
            raise DatasetError(
                f"{root} has two COCO files for {name}, {files[name].relative_to(folder)} and "
                f"{path.relative_to(folder)}: pass one of the files instead of the folder, or remove one."
            )
        files[name] = path
    return [
        Split(name, files[name], partial(_read, files[name], folder), partial(_read_boxes, files[name], folder))
        for name in SPLITS
        if name in files
    ]


def _read(json_file: Path, folder: Path) -> Annotations:
    """Return the annotations of one file, with the folder of its images."""
    return locate_images(read_coco(json_file, json_file.parent), folder)


def _read_boxes(json_file: Path, folder: Path) -> SplitBoxes | None:
    """Return the boxes of one file, None where its annotations have to be read."""
    return read_split_boxes(json_file, partial(locate_images, folder=folder))


def _coco_files(root: Path) -> list[Path]:
    """Return the JSON files that hold images and categories; of COCO's own tasks, those with boxes."""
    if root.is_file():
        return [root] if root.suffix.lower() == ".json" and not is_index(root) and _is_coco(root) else []
    paths = [path for path in files_below(root) if path.suffix.lower() == ".json" and not is_index(path)]
    paths = [path for path in paths if len(path.relative_to(root).parts) <= _DEPTH and _is_coco(path)]
    named = [path for path in paths if path.name.startswith("instances_")]
    return named or [path for path in paths if not path.name.startswith(_OTHER_TASKS)]


def _is_coco(path: Path) -> bool:
    """Return whether the file's beginning, or its end, has the lists of images and annotations or categories."""
    with path.open("rb") as file:
        text = file.read(_HEAD)
        if file.seek(0, 2) > _HEAD:
            file.seek(-_HEAD, 2)
            text += file.read()
    text = text.replace(b"\0", b"")  # UTF-16 and UTF-32 have zeros beside the letters of the keys
    keys = set(re.findall(rb'"(images|annotations|categories)"\s*:\s*\[', text))
    return len(keys) >= 2 or (b"images" in keys and b'"file_name"' in text)
