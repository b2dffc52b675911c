"""One file of the columns of records: NumPy's own format, array behind array, to be mapped into memory."""

import json
import os
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from align_detr.data.record_columns import ARRAYS, RecordColumns

FORMAT = 3
"""Number in the names of files; to be raised with every change of what is stored or checked."""


class UnusableFile(Exception):
    """A file of columns that is damaged."""


@dataclass(frozen=True)
class Checked:
    """Columns of an annotation file that has been checked, and what it was warned of, without the file's name."""

    columns: RecordColumns
    warnings: list[str]


def write_columns(path: Path, checked: Checked) -> None:
    """Write a file in one step: no process ever sees a part of it.

    Raise OSError for what cannot be written; then nothing is left.
    """
    columns = checked.columns
    arrays = [np.ascontiguousarray(columns.arrays[name], dtype) for name, dtype in ARRAYS.items()]
    described = {"categories": columns.categories, "warnings": checked.warnings}
    head = {"checksum": _checksum(arrays, described), **described}
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with beside.open("wb") as file:
            for array in (np.frombuffer(json.dumps(head).encode(), np.uint8), *arrays):
                npy.write_array(file, array, allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise


def open_columns(path: Path) -> Checked:
    """Return what a file holds, its columns as a memory map.

    Raise OSError for a file that cannot be opened, UnusableFile for another one.
    """
    try:
        with path.open("rb") as file:
            head = json.loads(npy.read_array(file, allow_pickle=False).tobytes())
            memory = np.memmap(path, np.uint8, "r")
            arrays = {name: _next_array(file, memory, dtype) for name, dtype in ARRAYS.items()}
            categories = [{**each, "id": each["id"], "name": each["name"]} for each in head["categories"]]
            checksum, warnings = head.pop("checksum"), [str(sentence) for sentence in head["warnings"]]
    except OSError:
        raise
    except Exception as error:  # of damaged headers numpy raises anything: TokenError, MemoryError ...
        raise UnusableFile(str(error) or type(error).__name__) from error
    if checksum != _checksum(list(arrays.values()), head):
        raise UnusableFile("its checksum is another")
    return Checked(RecordColumns(arrays, categories), warnings)


def _next_array(file: BinaryIO, memory: np.memmap, expected: str) -> np.ndarray:
    """Return the array that begins at the file's position, which moves behind it."""
    npy.read_magic(file)
    shape, is_fortran, dtype = npy.read_array_header_1_0(file)
    if is_fortran or dtype != np.dtype(expected):
        raise ValueError(f"an array of {dtype} is where {expected} belongs")
    start, size = file.tell(), int(np.prod(shape)) * dtype.itemsize
    if start + size > len(memory):
        raise EOFError("its end is missing")
    file.seek(size, os.SEEK_CUR)
    return np.asarray(memory[start : start + size]).view(dtype).reshape(shape)


def _checksum(arrays: list[np.ndarray], described: dict[str, Any]) -> int:
    total = zlib.crc32(json.dumps(described).encode())
    for array in arrays:
        total = zlib.crc32(array.reshape(-1).view(np.uint8).data, total)
    return total
