"""The boxes of a split in columns: all that a detector of boxes needs of a COCO file in a folder."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from align_detr.data.annotations import Annotations
from align_detr.data.lazy_records import Records, selected
from align_detr.data.record_columns import RecordColumns
from align_detr.data.records import class_indices

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplitBoxes:
    """Checked and repaired images and boxes.

    `rows` is the mask of the split's images among those of the columns, None for all of them. `warnings`: what was
    repaired or is doubtful in the file `source`.
    """

    columns: RecordColumns
    image_root: Path
    source: Path
    warnings: Sequence[str] = ()
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.columns.arrays["size"]) if self.rows is None else int(self.rows.sum())

    def warn(self) -> None:
        """Log what was repaired or is doubtful."""
        for sentence in self.warnings:
            logger.warning("In %s, %s", self.source, sentence)

    def records(self) -> Sequence[dict[str, Any]]:
        """Return the records, which are made when they are asked for."""
        records = Records(self.columns, str(self.image_root))
        return records if self.rows is None else selected(records, self.rows)

    def file_names(self) -> list[str]:
        """Return the names of all images of the columns in the order of the file."""
        names = [self.columns.text("file_name", row) for row in range(len(self.columns.arrays["size"]))]
        return [names[row] for row in np.argsort(self.columns.arrays["position"]).tolist()]

    def part(self, positions: Sequence[int]) -> "SplitBoxes":
        """Return the images that have these places in the file, without the warnings, which are of all."""
        rows = np.isin(self.columns.arrays["position"], np.asarray(positions, np.int64))
        return replace(self, rows=rows, warnings=())

    def classes(self) -> Annotations:
        """Return what tells of the classes: the categories, and one object of each category that has any."""
        used = set(self._categories_of_objects().tolist())
        objects = [
            {"category_id": id_} for id_, number in class_indices(self.columns.categories).items() if number in used
        ]
        return Annotations([], objects, self.columns.categories, self.image_root, self.source)

    def with_categories(self, categories: list[dict[str, Any]]) -> "SplitBoxes":
        """Return the same boxes with other categories, in which each class with objects is found by its name."""
        if categories == self.columns.categories:
            return self
        names = {category["id"]: category["name"] for category in self.columns.categories}
        known = class_indices(categories)
        new = {category["name"]: known[category["id"]] for category in categories}
        table = np.asarray([new.get(names[id_], -1) for id_ in class_indices(self.columns.categories)], np.int32)
        arrays = {**self.columns.arrays, "category": table[self.columns.arrays["category"]]}
        return replace(self, columns=RecordColumns(arrays, categories))

    def _categories_of_objects(self) -> np.ndarray:
        """Return the class of each object of the split."""
        classes = self.columns.arrays["category"]
        if self.rows is None:
            return classes
        return classes[np.repeat(self.rows, np.diff(self.columns.arrays["objects_end"]))]
