"""The image files that a COCO file names: tools write them relative to almost any folder."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.names import split_in_name
from align_detr.image_files import images_below

_SAMPLE = 50  # file names by which a folder is judged


def locate_images(annotations: Annotations, folder: Path) -> Annotations:
    """Return the annotations with the image folder under which their file names are found.

    The usual folders come first: the JSON file's own, images/, train2017/ for instances_train2017.json and others. If
    none has all of a sample, the images below `folder` are looked up by the end of their path and by name alone, as
    absolute paths of another machine need it; names of several images stay as they are.
    """
    names = [str(image.get("file_name")) if isinstance(image, dict) else "" for image in annotations.images]
    sample = names[:: max(1, len(names) // _SAMPLE)]
    candidates = [root for root in dict.fromkeys(_image_folders(annotations.source, folder)) if root.is_dir()]
    found = [sum(os.path.isfile(root / name) for name in sample) for root in candidates]
    best = candidates[found.index(max(found))]
    if max(found) == len(sample):
        return replace(annotations, image_root=best)
    return _by_end_of_path(annotations, names, best, folder)


def _by_end_of_path(annotations: Annotations, names: list[str], root: Path, folder: Path) -> Annotations:
    """Return the annotations with the names not found under `root` replaced by those of images below `folder`."""
    by_name: dict[str, list[Path]] = {}
    for path in images_below(folder):
        by_name.setdefault(path.name, []).append(path)
    images = []
    for image, name in zip(annotations.images, names, strict=True):
        if os.path.isfile(root / name):  # False, too, for a name that no file can have
            images.append(image)
            continue
        parts = PureWindowsPath(name).parts  # splits at both kinds of slash
        same = by_name.get(parts[-1], []) if parts else []
        nearest = [path for path in same if path.parts[-2:] == parts[-2:]] or same
        one = nearest[0] if len(nearest) == 1 else None
        images.append(image if one is None else {**image, "file_name": str(one.absolute())})
    return replace(annotations, images=images, image_root=root)


def _image_folders(json_file: Path, folder: Path) -> Iterator[Path]:
    """Yield the folders in which a COCO file's images usually are, the nearest first."""
    stem = json_file.stem.removeprefix("instances_")
    split = split_in_name(json_file.stem) or split_in_name(json_file.parent.name)
    for parent in (json_file.parent, folder, json_file.parent.parent):
        if not parent.is_relative_to(folder):
            continue
        for name in ("images", "JPEGImages", "img", "imgs", "data"):
            yield parent / name / stem
            if split is not None:
                yield parent / name / split
            yield parent / name
        yield parent / stem
        if split is not None:
            yield parent / split
            yield parent / f"{split}_images"
        yield parent
