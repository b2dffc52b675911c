"""Checks and repairs of the images of a split."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from align_detr.data.findings import Findings
from align_detr.data.number_columns import EXACT
from align_detr.data.shard_images import join_image, open_image
from align_detr.data.values import Id, find_repeated, read_ids, read_numbers
from align_detr.photos import ORIENTATION, SWAPPING

_LARGEST = 2**63  # numpy's integers end here


def repair_images(findings: Findings) -> list[dict[str, Any]]:
    """Return the images with whole ids, width and height, and without repetitions of the same entry."""
    images = findings.annotations.images
    ids = check_ids(findings, "image", images)
    names = [image.get("file_name") for image in images]
    findings.add("image-file-name-missing", [row for row, n in enumerate(names) if not isinstance(n, str) or not n])
    repeated = find_repeated(ids)
    same = {row for row, first in repeated if names[row] == names[first]}
    findings.add("image-repeated", sorted(same))
    others = [(row, first) for row, first in repeated if row not in same]
    findings.add("image-id-repeated", [row for row, _ in others], other=names[others[0][1]] if others else "")
    findings.add("image-file-repeated", [row for row, _ in find_repeated(names) if row not in same])
    names = _repair_backslashes(findings, names)
    sizes = _repair_sizes(findings, names)
    return [
        {**image, "id": id_, "file_name": name, "width": width, "height": height}
        for row, (image, id_, name, (width, height)) in enumerate(zip(images, ids, names, sizes, strict=True))
        if row not in same
    ]


def check_ids(findings: Findings, noun: str, entries: Sequence[dict[str, Any]]) -> list[Id | None]:
    """Return the ids of images or categories (`noun`), None where an entry has none that can be used."""
    ids = read_ids(entries)
    findings.add(f"{noun}-id-missing", [row for row, id_ in enumerate(ids) if id_ is None])
    large = [(row, abs(id_)) for row, id_ in enumerate(ids) if isinstance(id_, int) and abs(id_) > EXACT]
    findings.add(f"{noun}-id-too-large", [row for row, size in large if size >= _LARGEST])
    findings.add(f"{noun}-id-large", [row for row, size in large if size < _LARGEST])
    return ids


def _repair_backslashes(findings: Findings, names: Sequence[Any]) -> list[Any]:
    """Return the names with / for \\ where only that finds the file."""
    root, read, rows = findings.annotations.image_root, list(names), []
    for row, name in enumerate(names):
        if isinstance(name, str) and "\\" in name and not os.path.exists(root / name):
            slashes = name.replace("\\", "/")
            if os.path.exists(root / slashes):
                read[row] = slashes
                rows.append(row)
    findings.add("image-file-name-backslash", rows)
    return read


def _repair_sizes(findings: Findings, names: Sequence[Any]) -> list[tuple[int, int]]:
    """Return (width, height) of every image, from its file where the entry has none that can be used."""
    given: list[tuple[Any, Any]] = [(image.get("width"), image.get("height")) for image in findings.annotations.images]
    if {type(side) for size in given for side in size} <= {int} and all(w > 0 < h for w, h in given):
        return given
    numbers = read_numbers([side for size in given for side in size])[0].reshape(-1, 2)
    usable = ((numbers > 0) & (numbers < _LARGEST) & (numbers % 1 == 0)).all(axis=1)  # False for NaN
    sizes = [(int(w), int(h)) for w, h in np.where(usable[:, None], numbers, 0).tolist()]
    findings.add("image-size-text", [row for row, size in enumerate(given) if usable[row] and not _is_whole(size)])
    unknown = [(row, _read_size(findings, names[row])) for row in np.flatnonzero(~usable).tolist()]
    for row, size in unknown:
        sizes[row] = size or (0, 0)
    found, lost = [row for row, size in unknown if size], [row for row, size in unknown if not size]
    findings.add("image-size-missing", found, given)
    folder = findings.annotations.image_root
    findings.add("image-size-unknown", lost, given, folder=folder)
    return sizes


def _is_whole(size: tuple[object, object]) -> bool:
    return isinstance(size[0], int) and isinstance(size[1], int)


def _read_size(findings: Findings, name: object) -> tuple[int, int] | None:
    """Return width and height of an image file as it is shown; None for a file that cannot be read."""
    if not isinstance(name, str):
        return None
    try:
        with open_image(join_image(findings.annotations.image_root, name)) as file, Image.open(file) as image:
            turned = image.getexif().get(ORIENTATION, 1) in SWAPPING
            return (image.height, image.width) if turned else (image.width, image.height)
    except Exception:  # Pillow's decoders raise anything; the caller reports the file
        return None
