"""Checks and repairs of the boxes of a split."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from align_detr.data.annotation_table import column_of
from align_detr.data.findings import Findings
from align_detr.data.values import read_boxes

TOLERANCE = 1.0
"""Pixels that a box may reach beyond its image: tools round."""
_FEW = 5  # boxes by which no convention can be told
_CORNERS_SHARE = 0.2  # of the boxes beyond their image, from which boxes that could be corners are taken for them
_FRACTIONS_SHARE = 0.5


def repair_boxes(findings: Findings, sizes: np.ndarray, crowd: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the boxes (x, y, width, height) as (N, 4) float64, NaN where one is refused, and the repaired column.

    `sizes`: (N, 2) width and height of the images, infinite where they are not known; `crowd`: (N,).
    """
    given = column_of(findings.annotations.annotations, "bbox")
    boxes, malformed, texts = read_boxes(given)
    lost = np.flatnonzero(malformed).tolist()
    missing = {row for row in lost if given[row] is None or given[row] == []}
    findings.add("box-missing", sorted(missing))
    findings.add("box-malformed", [row for row in lost if row not in missing], given)
    findings.add("box-text", texts, given)
    not_finite = ~malformed & ~np.isfinite(boxes).all(axis=1)
    findings.add("box-not-finite", np.flatnonzero(not_finite).tolist(), given)
    boxes[not_finite] = np.nan
    findings.add("box-negative-size", np.flatnonzero((boxes[:, 2:] < 0).any(axis=1)).tolist(), given)
    empty = (boxes[:, 2:] == 0).any(axis=1)
    findings.add("box-empty", np.flatnonzero(empty).tolist(), given)
    _check_places(findings, given, boxes, sizes, (boxes[:, 2:] > 0).all(axis=1) & (crowd == 0))
    if not texts:
        return boxes, {}
    column = list(given)
    for row in texts:
        column[row] = boxes[row].tolist()
    return boxes, {"bbox": column}


def _check_places(
    findings: Findings, given: Sequence[Any], boxes: np.ndarray, sizes: np.ndarray, sound: np.ndarray
) -> None:
    """Report boxes outside or beyond their image, and wrong conventions, among the boxes of the mask `sound`."""
    start, end = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    outside = sound & ((start >= sizes) | (end <= 0)).any(axis=1)
    beyond = sound & ~outside & ((end > sizes + TOLERANCE) | (start < -TOLERANCE)).any(axis=1)
    fractions = sound & (start >= 0).all(axis=1) & (boxes <= 1 + 1e-6).all(axis=1) & (sizes > 2).all(axis=1)
    # corners: both ordered, and inside of the image
    may_be_corners = (boxes[:, 2:] > start).all(axis=1) & (boxes[:, 2:] <= sizes + TOLERANCE).all(axis=1)
    count, exceed = int(sound.sum()), outside | beyond
    if count >= _FEW and exceed.sum() >= _CORNERS_SHARE * count and not (sound & ~may_be_corners).any():
        _add(findings, "box-corners", exceed, given, sizes)
        return
    _add(findings, "box-outside", outside, given, sizes)
    _add(findings, "box-beyond", beyond, given, sizes)
    normalized = fractions.sum() > _FRACTIONS_SHARE * count
    _add(findings, "box-normalized" if normalized else "box-below-a-pixel", fractions, given, sizes)


def _add(findings: Findings, kind: str, mask: np.ndarray, given: Sequence[Any], sizes: np.ndarray) -> None:
    rows = np.flatnonzero(mask).tolist()
    size = "x".join(f"{side:g}" for side in sizes[rows[0]]) if rows else ""
    findings.add(kind, rows, given, size=size)
