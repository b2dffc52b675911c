"""A validation split by seed, for data sets that come without one."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from align_detr.data.annotations import Annotations
from align_detr.data.shard_images import name_of_image
from align_detr.errors import DatasetError


def divide(annotations: Annotations, *, fraction: float, seed: int) -> tuple[Annotations, Annotations]:
    """Return the annotations of the images for training, and of the `fraction` of them (at least one) for validation.

    The images are those of `divide_names`.
    """
    names = [str(image.get("file_name")) for image in annotations.images]
    train, held_out = divide_names(names, source=annotations.source, fraction=fraction, seed=seed)
    return _part(annotations, train), _part(annotations, held_out)


def divide_names(file_names: Sequence[str], *, source: Path, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Return the indices of the images for training, and of the `fraction` of them (at least one) for validation.

    The same images and seed give the same split. The copies of one photo that Roboflow augments
    (`name.rf.<hash>.jpg`) stay together: they would leak from one split into the other. Raise DatasetError for a
    fraction that is none, and for too few images of the file or folder `source`.
    """
    if not 0 < fraction < 1:
        raise DatasetError(f"A validation split takes a fraction between 0 and 1 of the images, not {fraction}.")
    photos: dict[str, list[int]] = {}
    for index, file_name in enumerate(file_names):
        name = name_of_image(file_name)
        photos.setdefault(name.rpartition(".rf.")[0] or f"{index}", []).append(index)
    if len(photos) < 2:
        raise DatasetError(
            f"{source} has no validation split, and {len(photos)} photo(s), too few to divide: add photos."
        )
    groups = list(photos.values())
    random.Random(seed).shuffle(groups)
    count = min(max(1, round(fraction * len(groups))), len(groups) - 1)
    held_out = {index for group in groups[:count] for index in group}
    train = [index for index in range(len(file_names)) if index not in held_out]
    return train, sorted(held_out)


def _part(annotations: Annotations, indices: list[int]) -> Annotations:
    """Return the annotations of the images with these indices."""
    images = [annotations.images[index] for index in indices]
    ids = {image["id"] for image in images}
    kept = [index for index, annotation in enumerate(annotations.annotations) if annotation.get("image_id") in ids]
    where = annotations.where
    return replace(
        annotations,
        images=images,
        annotations=[annotations.annotations[index] for index in kept],
        where=None if where is None else [where[index] for index in kept],
    )
