"""Shards without an index, as other tools write WebDataset's form: their tar files are read through."""

import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, BinaryIO

from align_detr.data.annotations import Annotations
from align_detr.data.layouts.class_files import listed_classes
from align_detr.data.layouts.folder import Split
from align_detr.data.layouts.images import with_progress
from align_detr.data.layouts.names import split_of
from align_detr.data.shard_images import name_in_shard
from align_detr.errors import DatasetError
from align_detr.image_files import SUFFIXES

logger = logging.getLogger(__name__)

_FORM = (
    'KEY.json is {"image": ..., "annotations": [...]} with entries as COCO has them, and a "category" in each object'
)


def scan_splits(root: Path) -> dict[str, Split]:
    """Return the splits of the tar files in the folder `root`, none unless they are in WebDataset's form.

    A name without train, val or test is of "train".
    """
    shards: dict[str, list[Path]] = {}
    for path in sorted(root.glob("*.tar")) if root.is_dir() else ():
        shards.setdefault(split_of(path, root) or "train", []).append(path)
    return {
        name: Split(name, root, partial(_read, paths, root)) for name, paths in shards.items() if _has_pairs(paths[0])
    }


def _has_pairs(path: Path) -> bool:
    """Return whether a tar file begins with a file KEY.json and another of this key."""
    try:
        with tarfile.open(path, "r:") as tar:
            names = [member.name for member in islice(_files(tar), 2)]
    except (tarfile.TarError, OSError):
        return False
    return len({_key(name) for name in names}) == 1 and any(map(_is_json, names))


def _read(paths: Sequence[Path], root: Path) -> Annotations:
    """Return the annotations in the KEY.json of all shards.

    The classes are those of a classes.txt, else in the order of their category_id, else of the alphabet. Raise
    DatasetError for a shard that is damaged, a key without image or annotations, and annotations of another form.
    """
    logger.info("%s has no index, so %d shards are read through: convert --to shards writes one.", root, len(paths))
    images: list[dict[str, Any]] = []
    objects: list[dict[str, Any]] = []
    where: list[str] = []
    for path in with_progress(paths, count=len(paths), title=f"Shards of {root.name}"):
        for key, image, annotations in _samples(path):
            entry = {"id": len(images) + 1, "file_name": key, **image}
            images.append(entry)
            objects += [{**each, "image_id": entry["id"]} for each in annotations]
            where += [f"object {number} of {key} in {path}" for number in range(1, len(annotations) + 1)]
    classes = listed_classes(list(root.iterdir())) or _class_names(objects, root)
    ids = {name: number for number, name in enumerate(classes, start=1)}
    for row, each in enumerate(objects):
        name = each.pop("category")
        if name not in ids:
            raise DatasetError(f"{where[row]} has the class {name!r}, which classes.txt does not list: add it there.")
        each["category_id"] = ids[name]
    categories = [{"id": number, "name": name} for number, name in enumerate(classes, start=1)]
    return Annotations(images, objects, categories, image_root=root, source=root, where=where)


def _class_names(objects: Sequence[dict[str, Any]], root: Path) -> list[str]:
    """Return the classes of the objects, by category_id where each has one, else by name."""
    pairs = {(each.get("category_id"), each["category"]) for each in objects}
    if not all(isinstance(id_, int) for id_, _ in pairs):
        return sorted({name for _, name in pairs})
    for column, noun in ((0, "category_id"), (1, "category")):
        values = [pair[column] for pair in pairs]
        for value in values:
            if values.count(value) > 1:
                others = sorted(str(pair[1 - column]) for pair in pairs if pair[column] == value)
                raise DatasetError(
                    f"The shards of {root} have the {noun} {value!r} with {' and '.join(others)}: give each class one "
                    "category_id, or none."
                )
    return [name for _, name in sorted(pairs)]


def _samples(path: Path) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Yield key, image and annotations of each sample of a shard; the image's name finds it in the shard."""
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for key, members in groupby(_files(tar), lambda member: _key(member.name)):
                yield _sample(path, key, list(members), file)
            end = _bytes(file, max(0, path.stat().st_size - 2 * tarfile.BLOCKSIZE), 2 * tarfile.BLOCKSIZE)
            if any(end):
                raise tarfile.ReadError("it does not end as one")
    except (tarfile.TarError, OSError) as error:
        raise DatasetError(f"The shard {path} is no whole tar file ({error}): copy or write it again.") from error


def _sample(
    path: Path, key: str, members: Sequence[tarfile.TarInfo], file: BinaryIO
) -> tuple[str, dict[str, Any], list[dict[str, Any]]]:
    """Return key, image and annotations of the members of one key. Other members, such as KEY.txt, are not read."""
    texts = [member for member in members if _is_json(member.name)]
    pictures = [member for member in members if Path(member.name).suffix.lower() in SUFFIXES]
    for found, what in ((pictures, "image"), (texts, "KEY.json")):
        if len(found) != 1:
            raise DatasetError(
                f"The shard {path} has {len(found) or 'no'} {what} of the key {key}: each key needs one, side by side."
            )
    (text,), (picture,) = texts, pictures
    content = _parse(_bytes(file, text.offset_data, text.size), path, key)
    image, annotations = content["image"], content["annotations"]
    header = _bytes(file, picture.offset_data - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
    short = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape").name  # of a long name, what the header holds
    name = str(image.get("file_name") or picture.name)
    return (
        key,
        {**image, "file_name": name_in_shard(path.name, short, picture.offset_data, picture.size, name)},
        annotations,
    )


def _parse(text: bytes, path: Path, key: str) -> dict[str, Any]:
    """Return the content of KEY.json; raise DatasetError for another form."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{key}.json of the shard {path} is no JSON ({error}): correct it.") from error
    image, objects = (content.get("image"), content.get("annotations")) if isinstance(content, dict) else (None, None)
    if not isinstance(image, dict) or not isinstance(objects, list):
        raise DatasetError(f"{key}.json of the shard {path} has another form, but {_FORM}: write it so.")
    if not all(isinstance(each, dict) and isinstance(each.get("category"), str) for each in objects):
        raise DatasetError(f'{key}.json of the shard {path} has an object without the name of its "category": add it.')
    for each in objects:
        if not isinstance(each.get("category_id"), int | None):
            raise DatasetError(
                f"{key}.json of the shard {path} has the category_id {each['category_id']!r}: write a number, or none."
            )
    return content


def _bytes(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return a part of the file, whose position stays: tarfile goes on from there."""
    position = file.tell()
    file.seek(offset)
    content = file.read(size)
    file.seek(position)
    return content


def _files(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Yield the members that are files, without those that WebDataset keeps for itself (__name__)."""
    return (member for member in tar if member.isreg() and not member.name.startswith("__"))


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def _key(name: str) -> str:
    """Return a member's name up to the first dot behind its folders."""
    folders, slash, last = name.rpartition("/")
    return f"{folders}{slash}{last.partition('.')[0]}"
