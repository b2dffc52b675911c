"""The annotations of a split, in COCO's form, whatever layout of files they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Annotations:
    """Images, objects and classes of one split; plain dictionaries, or a table that makes them (AnnotationTable).

    `images`: id, file_name (relative to `image_root`), width, height. `annotations`: id, image_id, category_id, bbox
    (x, y, width, height in pixels of the stored image), and area, iscrowd, segmentation where the source has them.
    `categories`: id, name. `source` is the file or folder that errors name; `where[i]`, where an annotation has no id
    of its own in it, is what they call annotation i ("labels/a.txt, line 3").
    """

    images: list[dict[str, Any]]
    annotations: Sequence[dict[str, Any]]
    categories: list[dict[str, Any]]
    image_root: Path
    source: Path
    where: list[str] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names in the order of the ids: class k of a model is entry k."""
        return class_names(self.categories)


def class_names(categories: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names of categories in the order of their ids."""
    return [category["name"] for category in sorted(categories, key=lambda category: category["id"])]
