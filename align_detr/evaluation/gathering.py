"""Detections of the images of a data set, gathered from batches and processes."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import Instances
from detectron2.utils import comm
from numpy.typing import NDArray

from align_detr.errors import DatasetError, NonFinitePrediction
from align_detr.evaluation.libraries import BoxColumns
from align_detr.evaluation.truth import GroundTruth, ImageKey, image_key

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageDetections:
    """Detections of an image: `label` (n,), the class index; `box` (n, 4), x, y, width, height in pixels, float64;
    `score` (n,), float64.
    """

    label: NDArray[np.int64]
    box: NDArray[np.float64]
    score: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)


class GatheredDetections:
    """Detections by image, for an evaluator."""

    def __init__(self, truth: GroundTruth) -> None:
        self.truth = truth
        self._found: dict[ImageKey, ImageDetections] = {}

    def add(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Keep the detections of a batch: `outputs[i]["instances"]` has boxes in pixels of the image of `inputs[i]`.

        Raise NonFinitePrediction for a score or box that is not finite, DatasetError for an image or a class that the
        data set does not have.
        """
        for entry, output in zip(inputs, outputs, strict=True):
            key = image_key(entry)
            self._check_image(key, entry)
            self._found[key] = self._detections(key, output["instances"].to("cpu"))

    def of_all_processes(self) -> dict[ImageKey, ImageDetections] | None:
        """Return the detections of all processes on the main one, with a warning of images without; None on others."""
        comm.synchronize()
        found = {key: detections for part in comm.gather(self._found, dst=0) for key, detections in part.items()}
        if not comm.is_main_process():
            return None
        if len(found) < len(self.truth.images):
            missing, name = len(self.truth.images) - len(found), self.truth.dataset_name
            logger.warning(
                "The test loader left out %d images of the data set '%s': no object is found there.", missing, name
            )
        return found

    def _check_image(self, key: ImageKey, entry: Mapping[str, Any]) -> None:
        """Raise DatasetError unless the image is one of the data set, and the same file if the entry names one."""
        expected = self.truth.file_names.get(key)
        if expected is None or entry.get("file_name", expected) != expected:
            raise DatasetError(
                f"The test loader gives image {key!r} ({entry.get('file_name', 'no file name')}), which is "
                f"{expected or 'no image'} in the data set '{self.truth.dataset_name}': set "
                "dataloader.evaluator.dataset_name to the data set of dataloader.test."
            )

    def _detections(self, key: ImageKey, instances: Instances) -> ImageDetections:
        boxes = instances.pred_boxes.tensor.clone()
        boxes[:, 2:] -= boxes[:, :2]
        finite = torch.isfinite(boxes).all(dim=1) & torch.isfinite(instances.scores)
        if not finite.all():
            raise NonFinitePrediction(
                f"{int((~finite).sum())} of {len(finite)} detections of image {key!r} "
                f"({self.truth.file_names[key]}) have a score or box that is NaN or infinite: evaluate an earlier "
                "checkpoint, or train with a lower rate."
            )
        classes, count = instances.pred_classes.tolist(), len(self.truth.class_names)
        if self.truth.is_named and max(classes, default=0) >= count:
            raise DatasetError(
                f"The model finds class {max(classes)}, but the data set '{self.truth.dataset_name}' has {count} "
                "classes, counted from 0: evaluate it with the config that it was trained with."
            )
        return ImageDetections(
            label=instances.pred_classes.numpy().astype(np.int64),
            box=boxes.double().numpy(),
            score=instances.scores.double().numpy(),
        )


def as_columns(truth: GroundTruth, found: Mapping[ImageKey, ImageDetections]) -> BoxColumns:
    """Return the detections in columns, with the image numbers of `truth`."""
    parts = [(number, found[key]) for key, number in truth.images.items() if key in found]
    counts = [len(each) for _, each in parts]
    return BoxColumns(
        image=np.repeat(np.array([number for number, _ in parts], dtype=np.int64), counts),
        label=np.concatenate([np.zeros(0, np.int64), *(each.label for _, each in parts)]),
        box=np.concatenate([np.zeros((0, 4)), *(each.box for _, each in parts)]),
        score=np.concatenate([np.zeros(0), *(each.score for _, each in parts)]),
    )
