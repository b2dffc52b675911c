"""Columns of numbers as JSON has them: compact arrays that give back the very integers and floats they were made of."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

EXACT = 2**53
"""Integers from here on are rounded by float64, and by tools that hold numbers so (JavaScript, pandas)."""


@dataclass(frozen=True)
class NumberColumn:
    """Numbers of any shape: `values` float64, and `whole`, a mask of those that are integers."""

    values: np.ndarray
    whole: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> "NumberColumn":
        return NumberColumn(self.values[rows], self.whole[rows])

    def tolist(self) -> list[Any]:
        """Return the numbers as lists of Python's int and float."""
        if not self.whole.any():
            return self.values.tolist()
        if self.whole.all():
            return self.values.astype(np.int64).tolist()
        flat = zip(self.values.ravel().tolist(), self.whole.ravel().tolist(), strict=True)
        numbers = [int(value) if whole else value for value, whole in flat]
        width = self.values[0].size
        return numbers if self.values.ndim == 1 else [numbers[i : i + width] for i in range(0, len(numbers), width)]


Column = NumberColumn | list[Any]
"""Values of one key: compact, or as they are where they are no numbers."""


def compact(values: Sequence[Any]) -> Column:
    """Return a column of numbers, or of lists of four numbers, as an array; other values stay a list."""
    kinds = set(map(type, values))
    if kinds == {list} and set(map(len, values)) == {4}:
        flat = _numbers(list(chain.from_iterable(values)))
        return list(values) if flat is None else NumberColumn(flat.values.reshape(-1, 4), flat.whole.reshape(-1, 4))
    numbers = _numbers(values) if kinds <= {int, float} else None
    return list(values) if numbers is None else numbers


def concatenate(columns: Sequence[Column]) -> Column:
    """Return columns one behind the other."""
    arrays = [column for column in columns if isinstance(column, NumberColumn)]
    if len(arrays) == len(columns) and len({array.values.ndim for array in arrays}) == 1:
        return NumberColumn(*(np.concatenate([getattr(a, name) for a in arrays]) for name in ("values", "whole")))
    return list(chain.from_iterable(map(as_list, columns)))


def as_list(column: Column) -> list[Any]:
    """Return the values of a column as Python's."""
    return column.tolist() if isinstance(column, NumberColumn) else column


def _numbers(values: Sequence[Any]) -> NumberColumn | None:
    """Return the values as a column; None where one is no number, or an integer that float64 rounds."""
    kinds = set(map(type, values))
    if not kinds <= {int, float}:
        return None
    whole: Iterable[bool] = (type(value) is int for value in values)
    mask = np.fromiter(whole, bool, len(values)) if len(kinds) > 1 else np.full(len(values), kinds == {int})
    try:
        array = np.array(values, dtype=np.float64)
    except OverflowError:
        return None
    return None if (np.abs(array[mask]) >= EXACT).any() else NumberColumn(array, mask)
