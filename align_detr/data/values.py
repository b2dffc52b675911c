"""Ids and numbers as tools write them: as integers, as floats, as text; columns of COCO's size are read by numpy."""

import math
from collections.abc import Iterable, Sequence
from itertools import chain
from numbers import Real  # numpy's numbers are registered with it
from typing import Any

import numpy as np

Id = int | str


def read_id(value: object) -> Id | None:
    """Return an id, with a whole float as an integer; None for a value that cannot be one."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, int) or (isinstance(value, str) and value):
        return value
    return None


def read_ids(entries: Iterable[dict[str, Any]]) -> list[Id | None]:
    """Return `read_id` of the "id" of every entry."""
    values = [entry.get("id") for entry in entries]
    return values if set(map(type, values)) <= {int} else [read_id(value) for value in values]


def find_repeated(values: Sequence[object]) -> list[tuple[int, int]]:
    """Return (row, first row with the same value) of all repetitions; 1 and "1" are the same, None is no value."""
    if len(set(map(str, values))) == len(values):
        return []
    first: dict[str, int] = {}
    rows = [(row, first.setdefault(str(value), row)) for row, value in enumerate(values) if value is not None]
    return [(row, earlier) for row, earlier in rows if row != earlier]


def match_ids(values: Sequence[Any], ids: Sequence[Id]) -> tuple[np.ndarray, list[int]]:
    """Return the index in `ids` of every value (-1: none), and the rows whose value has another type than its id."""
    if set(map(type, values)) <= {int} and set(map(type, ids)) <= {int}:
        index = {id_: row for row, id_ in enumerate(ids)}
        return np.fromiter((index.get(value, -1) for value in values), np.int64, len(values)), []
    by_text = {str(id_): row for row, id_ in enumerate(ids)}
    found = np.fromiter((by_text.get(str(read_id(value)), -1) for value in values), np.int64, len(values))
    return found, [row for row, match in enumerate(found) if match >= 0 and type(values[row]) is not type(ids[match])]


def read_number(value: object) -> float | None:
    """Return a number or the text of one as a float; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None
    except OverflowError:  # an integer beyond 1.8e308
        return math.inf


def read_numbers(values: Sequence[Any]) -> tuple[np.ndarray, list[int]]:
    """Return the values as float64, NaN where a value is no number, and the rows that are text."""
    if set(map(type, values)) <= {int, float}:
        try:
            return np.fromiter(values, np.float64, len(values)), []
        except OverflowError:
            pass
    numbers = [read_number(value) for value in values]
    texts = [row for row, value in enumerate(values) if isinstance(value, str) and numbers[row] is not None]
    return np.array([math.nan if number is None else number for number in numbers], dtype=np.float64), texts


def read_boxes(values: Sequence[Any]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return boxes as (N, 4) float64, a mask of those that are no four numbers (NaN in the first), and rows of text."""
    boxes = values if set(map(type, values)) <= {list, tuple} else [_as_sequence(box) for box in values]
    if set(map(len, boxes)) <= {4}:
        flat: list[Any] = list(chain.from_iterable(boxes))
        if set(map(type, flat)) <= {int, float}:
            return read_numbers(flat)[0].reshape(-1, 4), np.zeros(len(boxes), dtype=bool), []
    read = np.full((len(boxes), 4), np.nan)
    malformed, texts = np.ones(len(boxes), dtype=bool), []
    for row, box in enumerate(boxes):
        numbers = [read_number(value) for value in box]
        if len(numbers) == 4 and None not in numbers:
            read[row], malformed[row] = numbers, False
            if any(isinstance(value, str) for value in box):
                texts.append(row)
    return read, malformed, texts


def _as_sequence(box: object) -> Sequence[object]:
    """Return a box as a list or tuple, () for what is none."""
    if isinstance(box, np.ndarray):
        return box.tolist() if box.ndim == 1 else ()
    return box if isinstance(box, list | tuple) else ()
