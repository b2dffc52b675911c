"""Shards in a folder: tar files in WebDataset's form, and their index, a COCO file that says where each image lies."""

import re
from functools import partial
from pathlib import Path
from typing import Any

from align_detr.data.annotations import Annotations
from align_detr.data.coco import as_annotations, read_json
from align_detr.data.layouts.folder import Split
from align_detr.data.layouts.names import SPLITS
from align_detr.data.layouts.shards_scan import scan_splits
from align_detr.data.shard_images import is_url, name_in_shard
from align_detr.errors import DatasetError

SIGNS = "shards_train.json, or tar files such as train-000000.tar with KEY.jpg and KEY.json"

_INDEX = re.compile(r"shards_(\w+)\.json")
_REMEDY = "write the shards anew with align-detr convert"


def find_splits(root: Path) -> list[Split]:
    """Return the splits of the folder `root` by their indices, or by their tar files alone, [] without any.

    root: a folder, or an index.
    """
    matches = {path: _INDEX.fullmatch(path.name) for path in (root.iterdir() if root.is_dir() else [root])}
    files = {match[1]: path for path, match in matches.items() if match and path.is_file()}
    indexed = {name: Split(name, path, partial(read_index, path)) for name, path in files.items()}
    found = {**scan_splits(root), **indexed}
    return [found[name] for name in SPLITS if name in found]


def is_index(path: Path) -> bool:
    """Return whether a file's name is that of an index, which is a COCO file as well."""
    return _INDEX.fullmatch(path.name) is not None


def read_index(path: Path) -> Annotations:
    """Return the annotations of an index; no shard is opened, but those beside the index have the size it says.

    Raise DatasetError for an index that lacks something, and for a shard that is missing or of another size.
    """
    content = read_json(path)
    annotations = as_annotations(content, path, path.parent)
    shards = _shards(content, path)
    if not shards:
        raise DatasetError(f"{path} lists no shards: {_REMEDY}.")
    annotations.images = [_located(image, shards, path) for image in annotations.images]
    return annotations


def _shards(content: dict[str, Any], path: Path) -> list[str]:
    """Return the shards of an index as paths relative to it or, where there is no such file, as URLs."""
    listed, url = content.get("shards"), content.get("url")
    if not isinstance(listed, list) or not (url is None or (isinstance(url, str) and is_url(url))):
        raise DatasetError(f'{path} has no list "shards", or a "url" that is none: {_REMEDY}.')
    found = []
    for entry in listed:
        name, size = (entry.get("file"), entry.get("bytes")) if isinstance(entry, dict) else (None, None)
        if not isinstance(name, str) or Path(name).name != name or not isinstance(size, int):
            raise DatasetError(f'{path} has the shard {entry!r}, which wants a "file" and its "bytes": {_REMEDY}.')
        shard = path.parent / name
        if not shard.is_file():
            if url is None:
                raise DatasetError(f"The shard {shard}, which {path.name} lists, does not exist: complete the shards.")
            found.append(f"{url}/{name}")
            continue
        if shard.stat().st_size != size:
            raise DatasetError(
                f"The shard {shard} has {shard.stat().st_size} bytes, but {size} in {path.name}: copy it again."
            )
        found.append(name)
    return found


def _located(image: Any, shards: list[str], path: Path) -> Any:
    """Return an image's entry with the name that finds it; a malformed entry as it is, which the checks report."""
    if not isinstance(image, dict) or not isinstance(image.get("file_name"), str):
        return image
    rest = dict(image)
    shard, member, offset, size = (rest.pop(key, None) for key in ("shard", "member", "offset", "size"))
    numbers = [value for value in (shard, offset, size) if isinstance(value, int) and value >= 0]
    if len(numbers) != 3 or not isinstance(member, str):
        raise DatasetError(f"{path} does not say where image {image.get('id')} ({image['file_name']}) lies: {_REMEDY}.")
    if shard >= len(shards):
        raise DatasetError(f"{path} has image {image.get('id')} in shard {shard} of {len(shards)}: {_REMEDY}.")
    return {**rest, "file_name": name_in_shard(shards[shard], member, offset, size, image["file_name"])}
