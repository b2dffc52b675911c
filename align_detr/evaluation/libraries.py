"""The libraries that match boxes as COCO does, behind one form: hotcoco, and pycocotools as the reference."""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)

KEY = "dataloader.evaluator.library"


@dataclass(frozen=True)
class BoxColumns:
    """Detections of a data set in columns: `image` (D,), numbered from 1; `label` (D,), the class index; `box` (D, 4),
    x, y, width, height in pixels; `score` (D,).
    """

    image: NDArray[np.int64]
    label: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class Accumulated:
    """COCO's accumulated numbers, -1 where no object counts.

    `precision`: (IoU thresholds, recalls, classes, areas, numbers of detections); `recall`: the same without recalls.
    `thresholds`: of IoU. `areas`: names of the ranges of areas. `counts`: numbers of detections of an image and class.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    thresholds: Sequence[float]
    areas: Sequence[str]
    counts: Sequence[int]


@dataclass(frozen=True)
class BoxTask:
    """What a library evaluates: numbers of images and classes, annotations in COCO's form with images and categories
    numbered from 1, detections, and the numbers of detections of an image and class to state.
    """

    num_images: int
    num_classes: int
    annotations: Sequence[Mapping[str, Any]]
    detections: BoxColumns
    counts: Sequence[int]

    def images(self) -> list[dict[str, Any]]:
        """Return COCO's entries of the images."""
        return [{"id": number} for number in range(1, self.num_images + 1)]

    def categories(self) -> list[dict[str, Any]]:
        """Return COCO's entries of the classes."""
        return [{"id": number, "name": str(number)} for number in range(1, self.num_classes + 1)]


Library = Callable[[BoxTask], Accumulated]


def find_library(name: str) -> Library:
    """Return what evaluates a task: "pycocotools", the reference; "hotcoco", with the same numbers to the last bit and
    a hundred times as fast; or "auto": hotcoco if it is installed. Raise ConfigError for any other name, or for hotcoco
    if it cannot be imported.
    """
    if name not in ("auto", "hotcoco", "pycocotools"):
        raise ConfigError(f'{KEY} is "{name}": set it to "auto", "hotcoco" or "pycocotools".')
    if name == "pycocotools" or (name == "auto" and importlib.util.find_spec("hotcoco") is None):
        return with_pycocotools
    try:
        import hotcoco  # noqa: F401
    except Exception as error:  # a compiled module that does not fit fails in many ways
        if name == "auto":
            logger.warning("hotcoco cannot be imported, so pycocotools evaluates, slower: %s.", error)
            return with_pycocotools
        raise ConfigError(
            f'{KEY} is "hotcoco", which cannot be imported ({error}): pip install hotcoco, or set it to "pycocotools".'
        ) from error
    return with_hotcoco


def with_hotcoco(task: BoxTask) -> Accumulated:
    """Evaluate with hotcoco."""
    from hotcoco import COCO, COCOeval

    truth = COCO.from_arrays(
        task.images(),
        task.categories(),
        _column(task.annotations, "image_id", np.int64),
        _column(task.annotations, "category_id", np.int64),
        _column(task.annotations, "bbox", np.float64).reshape(-1, 4),
        area=_column(task.annotations, "area", np.float64),
        iscrowd=_column(task.annotations, "iscrowd", np.int64),
    )
    found = task.detections
    columns = (found.image[:, None], found.box, found.score[:, None], found.label[:, None] + 1)
    evaluation = COCOeval(truth, truth.load_res(np.concatenate(columns, axis=1, dtype=np.float64)), "bbox")
    return _accumulate(evaluation, task.counts)


def with_pycocotools(task: BoxTask) -> Accumulated:
    """Evaluate with pycocotools, the official implementation."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    def index(annotations: Sequence[Mapping[str, Any]]) -> COCO:
        coco = COCO()
        coco.dataset = {"images": task.images(), "categories": task.categories(), "annotations": annotations}
        coco.createIndex()
        return coco

    found = task.detections
    columns = (found.image, found.label + 1, found.box, found.score)
    boxes = [
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": score,
        }
        for number, (image, category, box, score) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), start=1
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        return _accumulate(COCOeval(index(task.annotations), index(boxes), "bbox"), task.counts)


def _accumulate(evaluation: Any, counts: Sequence[int]) -> Accumulated:
    """Run an evaluation that has pycocotools' interface."""
    evaluation.params.maxDets = list(counts)
    evaluation.evaluate()
    evaluation.accumulate()
    params = evaluation.params
    return Accumulated(
        precision=np.asarray(evaluation.eval["precision"]),
        recall=np.asarray(evaluation.eval["recall"]),
        thresholds=list(params.iouThrs),
        areas=list(params.areaRngLbl),
        counts=list(params.maxDets),
    )


def _column(annotations: Sequence[Mapping[str, Any]], key: str, dtype: type) -> NDArray[Any]:
    return np.array([annotation[key] for annotation in annotations], dtype=dtype)
