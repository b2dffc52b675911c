"""The classes that a detector tells apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Classes:
    """The classes that a detector tells apart: their names in the order of its logits, and category ids of a data set.

    `category_ids`: class index -> category id in the data set's annotations; others count from 1, as
    `align-detr convert` writes them.
    """

    names: Sequence[str]
    category_ids: Mapping[int, int] = field(default_factory=dict)

    def category_id(self, index: int) -> int:
        """Return the category id of a class."""
        return self.category_ids.get(index, index + 1)

    def categories(self) -> list[dict[str, Any]]:
        """Return COCO's categories."""
        return [{"id": self.category_id(k), "name": name} for k, name in enumerate(self.names)]
