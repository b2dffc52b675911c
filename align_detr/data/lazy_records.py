"""Records of images, in detectron2's format, that are made of columns when they are asked for.

A list of COCO's 118,287 records takes gigabytes, and every worker process gets a copy of those that it looks at: Python
counts references in the objects themselves. The columns take 80 MB, once for all processes.
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np
from detectron2.data.common import DatasetFromList
from detectron2.structures import BoxMode

from align_detr.data.number_columns import NumberColumn
from align_detr.data.record_columns import RecordColumns
from align_detr.data.shard_images import join_image

Record = dict[str, Any]


class _Sliceable(Sequence[Record]):
    """Records by number, in slices, and equal to a list of the same."""

    def record(self, row: int) -> Record:
        """Return a record; raise IndexError behind the last."""
        raise NotImplementedError

    @overload
    def __getitem__(self, row: int) -> Record: ...
    @overload
    def __getitem__(self, row: slice) -> list[Record]: ...
    def __getitem__(self, row: int | slice) -> Record | list[Record]:
        """Return a record, or a list of several."""
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        return self.record(row)

    def __eq__(self, other: object) -> bool:
        return _equal(self, other)

    __hash__ = None  # type: ignore[assignment]


class Records(_Sliceable):
    """The records of a file's columns. Each access makes a new one, whose changes reach nothing else."""

    def __init__(self, columns: RecordColumns, image_root: str) -> None:
        self.columns = columns
        self.image_root = image_root

    def __len__(self) -> int:
        return len(self.columns.arrays["size"])

    def record(self, row: int) -> Record:
        """Return a record; raise IndexError behind the last."""
        row = range(len(self))[row]
        arrays = self.columns.arrays
        width, height = arrays["size"][row].tolist()
        has_text = len(arrays["image_id_text"]) > 0
        return {
            "file_name": join_image(self.image_root, self.columns.text("file_name", row)),
            "height": height,
            "width": width,
            "image_id": self.columns.text("image_id_text", row) if has_text else arrays["image_id"][row].item(),
            "annotations": self._annotations(slice(*arrays["objects_end"][row : row + 2].tolist())),
        }

    def _annotations(self, rows: slice) -> list[Record]:
        arrays = self.columns.arrays
        columns = (
            arrays["id"][rows].tolist(),
            NumberColumn(arrays["bbox"][rows], arrays["bbox_whole"][rows]).tolist(),
            NumberColumn(arrays["area"][rows], arrays["area_whole"][rows]).tolist(),
            arrays["crowd"][rows].astype(np.int64).tolist(),
            arrays["category"][rows].tolist(),
        )
        keys = ("id", "bbox", "area", "iscrowd", "category_id")
        return [
            {**dict(zip(keys, values, strict=True)), "bbox_mode": BoxMode.XYWH_ABS}
            for values in zip(*columns, strict=True)
        ]


class JoinedRecords(_Sliceable):
    """Records of several data sets behind one another, or those among them whose `rows` are given."""

    def __init__(self, parts: Sequence[Sequence[Record]], rows: np.ndarray | None = None) -> None:
        self.parts = parts
        self.starts = np.cumsum([0, *map(len, parts)])
        self.rows = np.arange(self.starts[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def record(self, row: int) -> Record:
        """Return a record; raise IndexError behind the last."""
        at = self.rows[row]
        part = int(np.searchsorted(self.starts, at, side="right")) - 1
        return self.parts[part][int(at - self.starts[part])]


def joined(parts: Sequence[Sequence[Record]]) -> Sequence[Record]:
    """Return the records of several data sets: a list if all are lists."""
    if len(parts) == 1:
        return parts[0]
    if all(isinstance(part, list) for part in parts):
        return [record for part in parts for record in part]
    return JoinedRecords(parts)


def selected(records: Sequence[Record], mask: np.ndarray) -> Sequence[Record]:
    """Return the records of a mask: a list if all are one."""
    rows = np.flatnonzero(mask)
    return [records[row] for row in rows] if isinstance(records, list) else JoinedRecords([records], rows)


def shared(records: Sequence[Record]) -> Sequence[Record]:
    """Return the same records as worker processes share them without a copy: lists as detectron2 serializes them."""
    if isinstance(records, JoinedRecords):
        return JoinedRecords([shared(part) for part in records.parts], records.rows)
    return records if isinstance(records, Records) else DatasetFromList(records, copy=False)


def count_objects(records: Sequence[Record]) -> np.ndarray:
    """Return the objects of each record that are no crowd regions: (N,) int64."""
    if isinstance(records, JoinedRecords):
        return np.concatenate([count_objects(part) for part in records.parts])[records.rows]
    if isinstance(records, Records):
        arrays = records.columns.arrays
        return np.diff(np.append(0, (~arrays["crowd"]).cumsum())[arrays["objects_end"]])
    counts = (sum(not a.get("iscrowd", 0) for a in record.get("annotations", ())) for record in records)
    return np.fromiter(counts, np.int64, len(records))


def are_wide(records: Sequence[Record]) -> list[bool]:
    """Return whether each image is wider than high."""
    if isinstance(records, JoinedRecords):
        wide = [each for part in records.parts for each in are_wide(part)]
        return [wide[row] for row in records.rows]
    if isinstance(records, Records):
        width, height = records.columns.arrays["size"].T
        return (width > height).tolist()
    return [record["width"] > record["height"] for record in records]


def _equal(records: Sequence[Record], other: object) -> bool:
    """Return whether a sequence of records has the same ones."""
    if not isinstance(other, list | Records | JoinedRecords):
        return NotImplemented
    return len(records) == len(other) and all(one == each for one, each in zip(records, other, strict=True))
