"""AP over the iterations of trainings, from their metrics.json."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align_detr.errors import DatasetError

_AP = "bbox/AP"


def read_training(path: str | os.PathLike[str], name: str) -> list[dict[str, Any]]:
    """Return the evaluations of one training: name, file, iterations, AP and AP50 (percent, None where not finite).

    A training that was evaluated on several sets has one entry per set. Raise DatasetError for a file that is missing,
    is not in the form of detectron2's metrics.json (one JSON object per line), or holds no AP.
    """
    rows = _rows(Path(path))
    keys = sorted({key for row in rows for key in row if key == _AP or key.endswith(f"/{_AP}")})
    if not keys:
        raise DatasetError(
            f'{path} has no "{_AP}", so it tells nothing of an evaluation: name the metrics.json of a training that '
            "was evaluated, or leave out --metrics."
        )
    return [
        _of_set(rows, key, name if len(keys) == 1 else f"{name}, {key.removesuffix('/' + _AP)}", path) for key in keys
    ]


def _of_set(rows: Sequence[dict[str, Any]], key: str, name: str, path: str | os.PathLike[str]) -> dict[str, Any]:
    found = {row["iteration"]: row for row in rows if key in row}  # the last of an iteration
    return {
        "name": name,
        "file": Path(path).name,
        "iterations": sorted(found),
        "AP": [_finite(found[iteration][key]) for iteration in sorted(found)],
        "AP50": [_finite(found[iteration].get(f"{key}50")) for iteration in sorted(found)],
    }


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines that have a number of iterations."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
    except FileNotFoundError as error:
        raise DatasetError(f"The file {path} of --metrics does not exist: correct its path.") from error
    except OSError as error:
        raise DatasetError(f"The file {path} of --metrics cannot be read ({error.strerror}): correct that.") from error
    except ValueError as error:
        raise DatasetError(
            f"{path} does not hold one JSON object per line ({error}): name the metrics.json of a training."
        ) from error
    if not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{path} does not hold one JSON object per line: name the metrics.json of a training.")
    return [row for row in rows if isinstance(row.get("iteration"), int)]


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None
