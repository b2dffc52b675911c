"""What a split holds: classes, sizes of boxes, objects per image."""

from dataclasses import dataclass

import numpy as np

from align_detr.data.annotations import Annotations

_SMALL, _LARGE = 32**2, 96**2  # COCO's limits of the areas, in pixels


@dataclass(frozen=True)
class Statistics:
    """Counts of one split that can be used; `objects` and everything below leave out crowd regions.

    `classes`: objects per class name, in the order of the ids. `sizes`: objects with an area below 32^2, below 96^2 and
    above. `per_image`: least, median and most objects of an image; `fullest`: the file name of the image with most.
    """

    images: int
    empty_images: int
    crowds: int
    objects: int
    classes: dict[str, int]
    sizes: tuple[int, int, int]
    per_image: tuple[int, float, int]
    fullest: str


def statistics_of(annotations: Annotations) -> Statistics:
    """Return the counts of repaired annotations without errors."""
    objects = [a for a in annotations.annotations if not a.get("iscrowd", 0)]
    areas = np.fromiter((a["area"] for a in objects), dtype=np.float64, count=len(objects))
    small, large = int((areas < _SMALL).sum()), int((areas >= _LARGE).sum())
    row_of_image = {image["id"]: row for row, image in enumerate(annotations.images)}
    rows = np.fromiter((row_of_image[a["image_id"]] for a in objects), dtype=np.int64, count=len(objects))
    per_image = np.bincount(rows, minlength=len(row_of_image))
    fullest = annotations.images[int(per_image.argmax())]["file_name"] if len(per_image) else ""
    per_image = per_image if len(per_image) else np.zeros(1, dtype=np.int64)
    return Statistics(
        images=len(annotations.images),
        empty_images=len(annotations.images) - int((per_image > 0).sum()),
        crowds=len(annotations.annotations) - len(objects),
        objects=len(objects),
        classes=_per_class(annotations, objects),
        sizes=(small, len(objects) - small - large, large),
        per_image=(int(per_image.min()), float(np.median(per_image)), int(per_image.max())),
        fullest=fullest,
    )


def _per_class(annotations: Annotations, objects: list[dict]) -> dict[str, int]:
    categories = sorted(annotations.categories, key=lambda category: category["id"])
    index = {category["id"]: i for i, category in enumerate(categories)}
    classes = np.fromiter((index[a["category_id"]] for a in objects), dtype=np.int64, count=len(objects))
    counts = np.bincount(classes, minlength=len(categories))
    return {category["name"]: int(count) for category, count in zip(categories, counts, strict=True)}
