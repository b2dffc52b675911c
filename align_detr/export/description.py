"""What an exported file says of itself: the JSON under the key `align_detr` of its metadata, which `metadata` reads."""

import json
import logging
from collections.abc import Sequence
from typing import Any

from detectron2.data import transforms as T

from align_detr import __version__
from align_detr.export.metadata import FORMAT
from align_detr.export.module import size_multiple
from align_detr.inference.classes import Classes
from align_detr.inference.views import TestView

logger = logging.getLogger(__name__)


def describe(
    model: Any,
    classes: Classes,
    view: TestView,
    *,
    size: tuple[int, int] | None,
    batch: int | None,
    normalised: bool,
    num_detections: int,
    precision: str,
) -> dict[str, Any]:
    """Return the description of a file with the graph of `model`; `size` and `batch` are None where they are free."""
    ids = [classes.category_ids.get(k) for k in range(len(classes.names))]
    return {
        "format": FORMAT,
        "version": __version__,
        "architecture": type(model).__name__,
        "class_names": list(classes.names),
        "category_ids": None if None in ids else ids,
        "input": "normalised" if normalised else "uint8",
        "channels": view.image_format,
        "pixel_mean": _numbers(model.pixel_mean),
        "pixel_std": _numbers(model.pixel_std),
        "size": None if size is None else list(size),
        "size_multiple": size_multiple(model),
        "batch": batch,
        "resize": resize_of(view),
        "white_level": view.white_level,
        "num_detections": num_detections,
        "precision": precision,
    }


def as_text(description: dict[str, Any]) -> str:
    """Return a description as JSON."""
    return json.dumps(description)


def resize_of(view: TestView) -> dict[str, int] | None:
    """Return short edge and limit of the long edge that the test mapper scales images to, or None if it does not.

    Warn of augmentations that are something else than such a resize.
    """
    resizes = [x for x in view.augmentations if isinstance(x, T.ResizeShortestEdge)]
    others = [type(x).__name__ for x in view.augmentations if not isinstance(x, T.ResizeShortestEdge)]
    if others:
        logger.warning(
            "dataloader.test.mapper has %s, which the exported file does not say: apply it to images before the file.",
            ", ".join(others),
        )
    if not resizes:
        return None
    edges = resizes[-1].short_edge_length
    short = edges if isinstance(edges, int) else max(edges)
    return {"short_edge": int(short), "max_size": int(resizes[-1].max_size)}


def _numbers(values: Any) -> Sequence[float]:
    return [float(x) for x in values.flatten()]
