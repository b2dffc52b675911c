"""Copies of a data set's images under names that are free in the layout that is written."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from pathlib import Path, PureWindowsPath
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.images import with_progress
from align_detr.data.layouts.names import split_in_name
from align_detr.data.layouts.pairs import SIDES
from align_detr.data.shard_images import join_image, name_of_image, open_image
from align_detr.errors import DatasetError


def free_names(annotations: Annotations, taken: set[str]) -> list[str]:
    """Return the images' file names without the folders of their old layout, each with a stem that is not `taken`.

    Folders of its own, such as cam1/, stay. `taken` grows: labels of a.jpg and a.png would be one file.
    """
    names = []
    for image in annotations.images:
        *folders, last = PureWindowsPath(name_of_image(str(image["file_name"]))).parts
        path = Path(*_own(folders), last)
        wanted = path.with_suffix("").as_posix()
        stem = next(each for each in _numbered(wanted) if each.lower() not in taken)
        taken.add(stem.lower())
        names.append(f"{stem}{path.suffix}")
    return names


def _numbered(stem: str) -> Iterator[str]:
    """Yield the stem, then stem_2, stem_3 and so on."""
    yield stem
    yield from (f"{stem}_{number}" for number in count(2))


def copy_images(annotations: Annotations, names: Iterable[str], folder: Path) -> None:
    """Copy the images, unchanged, into `folder`; raise DatasetError for one that is missing."""
    jobs = list(zip(annotations.images, names, strict=True))
    for image, name in with_progress(jobs, count=len(jobs), title=f"Images to {folder.name}"):
        content = image_bytes(annotations, image)
        new_file(folder, name).write_bytes(content)


def image_bytes(annotations: Annotations, image: Mapping[str, Any]) -> bytes:
    """Return the bytes of an image's file, which may lie in a shard; raise DatasetError for one that is missing."""
    source = join_image(annotations.image_root, image["file_name"])
    try:
        with open_image(source) as file:
            return file.read()
    except FileNotFoundError as error:
        raise DatasetError(
            f"The image file {source} ({annotations.source}) does not exist: complete the image folder, or remove "
            "the image from the annotations."
        ) from error


def new_file(folder: Path, name: str | Path) -> Path:
    """Return the path of a new file below `folder` and make the folders above it.

    Raise DatasetError for a name that leads out of `folder`.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"The file {name} would be written outside {folder}: rename it in the annotations.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _own(folders: list[str]) -> list[str]:
    """Return the folders that belong to the images, not to their layout; none of a path from elsewhere."""
    from_root = folders and set(folders[0]) & set("/\\:")
    if from_root or not {"", ".", ".."}.isdisjoint(folders):
        return []
    return [name for name in folders if name.lower() not in SIDES and split_in_name(name) is None]
