"""Annotations of a split in columns, for files of COCO's size: a sequence of dictionaries that are made when asked for.

860,000 dictionaries take a gigabyte, their columns 80 MB.
"""

from collections.abc import Mapping, Sequence
from typing import Any, overload

from align_detr.data.number_columns import Column, NumberColumn, as_list, compact

ABSENT: Any = type("Absent", (), {"__repr__": lambda self: "ABSENT"})()
"""The value, in a column, of an annotation that lacks the key."""


class AnnotationTable(Sequence[dict[str, Any]]):
    """Annotations as `columns`: a key's value in each; a value that is ABSENT is a key that the annotation lacks."""

    def __init__(self, columns: Mapping[str, Column], size: int) -> None:
        self.columns = dict(columns)
        self._size = size

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, row: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, row: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, row: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """Return a new dictionary (or several), whose changes reach nothing else."""
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(self._size))]
        row = range(self._size)[row]
        values = {key: as_list(column[row : row + 1])[0] for key, column in self.columns.items()}
        return {key: value for key, value in values.items() if value is not ABSENT}

    def column(self, key: str) -> list[Any]:
        """Return the value of `key` in every annotation, None where it is absent."""
        column = self.columns.get(key)
        if column is None:
            return [None] * self._size
        values = as_list(column)
        return values if isinstance(column, NumberColumn) else [None if v is ABSENT else v for v in values]

    def replaced(self, columns: Mapping[str, Sequence[Any]]) -> "AnnotationTable":
        """Return the annotations with other values of some keys."""
        return AnnotationTable(self.columns | {key: compact(values) for key, values in columns.items()}, self._size)


def column_of(entries: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """Return the value of `key` in every entry of a list or table, None where it is absent."""
    return entries.column(key) if isinstance(entries, AnnotationTable) else [entry.get(key) for entry in entries]
