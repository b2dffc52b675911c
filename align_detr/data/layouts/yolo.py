"""YOLO's layout: a data.yaml with images and labels, or images and text files alone; Darknet's obj.data as well."""

import logging
from collections.abc import Callable
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.class_files import CLASS_FILES, listed_classes
from align_detr.data.layouts.folder import Split
from align_detr.data.layouts.images import image_size, with_progress
from align_detr.data.layouts.names import SPLITS, split_of
from align_detr.data.layouts.pairs import Key, by_key, key_of
from align_detr.data.layouts.text import read_text
from align_detr.data.layouts.yolo_config import MOST_UNNAMED, YoloConfig, is_config, read_config
from align_detr.data.layouts.yolo_labels import YoloObject, is_label_file, read_labels
from align_detr.errors import DatasetError
from align_detr.image_files import UNREAD, files_below, is_image

logger = logging.getLogger(__name__)

SIGNS = "a data.yaml, or text files in labels/ or beside the images"
_YAML = {".yaml", ".yml"}
_DEPTH = 3  # folders deep in which a data.yaml is looked for: archives unpack into a folder of their own


def find_splits(root: Path) -> list[Split]:
    """Return the splits of the YOLO files below `root` (or of the data.yaml `root`), [] without any.

    They are those of a data.yaml; if it names no images, or there is none, folders called train, valid and test.
    Raise DatasetError for several data.yaml, and as `read_config` does.
    """
    folder = root if root.is_dir() else root.parent
    files = list(files_below(folder))
    config = _find_config(root, files)
    labels: dict[Key, Path] = {}
    if config is None or not config.images:
        texts = [path for path in files if path.suffix.lower() == ".txt" and path.name not in CLASS_FILES]
        if not any(map(is_label_file, texts)):
            return []
        labels = _labels_by_key(folder, files, texts)
        if not labels:
            return []
    config = config or YoloConfig(folder, None)
    names = config.names
    if names is None:
        listed = listed_classes(files)
        names = None if listed is None else dict(enumerate(listed))
    label_of = partial(_label_of, labels=labels, root=folder)
    images = config.images or _by_folder(folder, list(filter(is_image, files)))
    return [
        Split(name, config.source, partial(_read_split, name, folder, files, config, images[name], label_of, names))
        for name in SPLITS
        if images.get(name)
    ]


def _find_config(root: Path, files: list[Path]) -> YoloConfig | None:
    """Return what the data.yaml (or obj.data) nearest to `root` says; None without one."""
    if root.is_file():
        if root.suffix not in _YAML:
            return None
        read_text(root)  # of a file that the user names, the fault is told, whatever its name
        return read_config(root) if is_config(root) else None
    named = [path for path in files if path.suffix in _YAML or path.name == "obj.data"]
    by_depth = groupby(sorted(named, key=lambda path: len(path.parts)), key=lambda path: len(path.parts))
    for _, paths in islice(by_depth, _DEPTH):
        found = [path for path in paths if is_config(path)]
        if len(found) > 1:
            names = " and ".join(str(path.relative_to(root)) for path in found)
            raise DatasetError(f"{root} holds {names}: pass one of them as the data.")
        if found:
            return read_config(found[0])
    return None


def _labels_by_key(root: Path, files: list[Path], texts: list[Path]) -> dict[Key, Path]:
    """Return the text files that have an image of the same name, by key."""
    images = by_key(filter(is_image, files), root)
    named = {key_of(path, root)[-1] for path in images.values()}
    found = by_key((path for path in texts if path.stem in named), root)
    return {key: path for key, path in found.items() if key in images}


def _by_folder(root: Path, images: list[Path]) -> dict[str, list[Path]]:
    """Return the images by the split that a folder names; those in no such folder are "train"."""
    parts: dict[str, list[Path]] = {}
    for image in images:
        name = "train" if image.parent == root else split_of(image.parent, root) or "train"
        parts.setdefault(name, []).append(image)
    return parts


def _label_of(image: Path, *, labels: dict[Key, Path], root: Path) -> Path | None:
    """Return the label file of an image: in labels/ for one in images/, beside it, or of the same key; or None."""
    beside = image.with_suffix(".txt")
    swapped = beside
    if "images" in beside.parts:
        last = len(beside.parts) - 1 - beside.parts[::-1].index("images")
        swapped = Path(*beside.parts[:last], "labels", *beside.parts[last + 1 :])
    return next((path for path in (swapped, beside) if path.is_file()), labels.get(key_of(image, root)))


def _read_split(name: str, root: Path, files: list[Path], config: YoloConfig, *parts: Any) -> Annotations:
    """Return the annotations of a split as `_read` does, after a warning of objects and photos that do not count."""
    keys = {key_of(path, root) for path in files if is_image(path)}
    ours = _by_folder(root, [path for path in files if path.suffix.lower() in {".txt", *UNREAD}]).get(name, [])
    texts = [path for path in ours if path.suffix.lower() == ".txt" and path.name not in CLASS_FILES]
    lost = [path for path in texts if key_of(path, root) not in keys and is_label_file(path)]
    unread = [path for path in ours if path.suffix.lower() in UNREAD]
    if lost:
        logger.warning(
            "%s, %s: %d label files with objects have no image and do not count, such as %s: complete the images.",
            config.source, name, len(lost), lost[0],
        )  # fmt: skip
    if unread:
        logger.warning(
            "%s, %s: %d photos are in a format that is not read, such as %s: convert them to JPEG or PNG.",
            config.source, name, len(unread), unread[0],
        )  # fmt: skip
    return _read(root, config, *parts)


def _read(
    root: Path,
    config: YoloConfig,
    photos: list[Path],
    label_of: Callable[[Path], Path | None],
    names: dict[int, str] | None,
) -> Annotations:
    """Return the annotations of the photos; a photo without a label file has no objects.

    Category ids are YOLO's class indices. Without names anywhere, classes are called by their index. Raise DatasetError
    as `read_labels` does, if no photo has a label file, and for an image that is missing or cannot be read.
    """
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    where: list[str] = []
    bare = 0
    for number, photo in enumerate(with_progress(photos, count=len(photos), title="YOLO"), start=1):
        width, height = image_size(photo)
        name = photo.relative_to(root).as_posix() if photo.is_relative_to(root) else str(photo.absolute())
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        path = label_of(photo)
        bare += path is None
        for each in () if path is None else read_labels(path, (width, height), keypoints=config.keypoints):
            objects.append(_annotation(each, image_id=number, number=len(objects) + 1))
            where.append(f"{path}, line {each.line},")
    if bare == len(photos):
        raise DatasetError(f"{config.source}: none of {bare} photos has a label file, such as {_expected(photos[0])}.")
    if bare:
        logger.warning("%s: %d of %d photos have no label file: no objects.", config.source, bare, len(photos))
    if names is None:
        names = _numbered(objects, where)
        logger.warning("%s: no file lists the classes, which are called 0 to %d.", config.source, len(names) - 1)
    categories = [{"id": index, "name": name} for index, name in names.items()]
    return Annotations(images, objects, categories, image_root=root, source=config.source, where=where)


def _numbered(objects: list[dict[str, Any]], where: list[str]) -> dict[int, str]:
    """Return the classes up to the objects' largest, called by index; raise DatasetError if that is absurd."""
    row = max(range(len(objects)), key=lambda row: objects[row]["category_id"], default=None)
    largest = -1 if row is None else objects[row]["category_id"]
    if row is not None and largest >= MOST_UNNAMED:
        raise DatasetError(
            f"{where[row]} has class {largest}, and no file lists the classes: correct the line, or add classes.txt "
            "with one name per line."
        )
    return {index: str(index) for index in range(largest + 1)}


def _annotation(each: YoloObject, *, image_id: int, number: int) -> dict[str, Any]:
    polygon = {} if each.polygon is None else {"segmentation": [each.polygon]}
    return {"id": number, "image_id": image_id, "category_id": each.label, "bbox": [*each.box], "iscrowd": 0, **polygon}


def _expected(photo: Path) -> str:
    """Return the usual place of a photo's label file."""
    return str(photo.with_suffix(".txt")).replace("/images/", "/labels/")
