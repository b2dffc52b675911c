"""Confident detections where no object is: candidates for missing labels."""

from typing import Any

import numpy as np

from align_detr.analysis.results import Results
from align_detr.analysis.tables import Detections, Floats, Integers

OVERLAP = 0.1
"""IoU with an object, of whatever class, from which a detection is of something that is labelled."""

_SAME_PLACE = 0.5


def list_unmatched(results: Results, thresholds: Floats, *, limit: int = 100) -> list[dict[str, Any]]:
    """Return the most confident detections that overlap no object, of whatever class, by an IoU of .1 or more.

    Of crowds, which are objects here, the share of the detection's area counts. Detections at or above the threshold
    (K,) of their class are listed, the best score first, at most `limit`: image_id, file_name, class, score and box. Of
    several in one place, of whatever class, the best is listed: the others overlap it by an IoU of .5 or more. That
    there is an object and its label is missing is for a person to say.
    """
    truth, found, pairs = results.truth, results.detections, results.overlaps
    lonely = found.score >= thresholds[found.label]
    lonely[pairs.detection[pairs.iou >= OVERLAP]] = False
    rows = np.flatnonzero(lonely)
    rows = rows[np.lexsort((found.entry[rows], -found.score[rows]))]
    return [
        {
            "image_id": truth.image_ids[found.image[row]],
            "file_name": truth.file_names[found.image[row]],
            "class": truth.class_names[found.label[row]],
            "score": float(found.score[row]),
            "box": found.box[row].tolist(),
        }
        for row in _one_per_place(found, rows, limit)
    ]


def _one_per_place(found: Detections, rows: Integers, limit: int) -> list[int]:
    """Return the first `limit` of `rows` that share their place with none before them."""
    kept: list[int] = []
    of_image: dict[int, list[int]] = {}
    for row in rows.tolist():
        if len(kept) == limit:
            break
        others = of_image.setdefault(int(found.image[row]), [])
        if not others or _overlap(found.box[row], found.box[others]).max() < _SAME_PLACE:
            others.append(row)
            kept.append(row)
    return kept


def _overlap(box: Floats, others: Floats) -> Floats:
    """Return the IoU of a box (4,) with others (n, 4)."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[:2] + box[2:], others[:, :2] + others[:, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=1)
    return np.asarray(both / (np.prod(box[2:]) + np.prod(others[:, 2:], axis=1) - both), dtype=np.float64)
