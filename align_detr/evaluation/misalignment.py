"""The metrics of `align_detr.analysis` as a detectron2 evaluator."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from torch import Tensor

from align_detr.analysis import analyse
from align_detr.analysis.numbers import METRICS
from align_detr.analysis.tables import Truth, make_objects, sort_detections
from align_detr.checks import check_count
from align_detr.errors import DatasetError
from align_detr.evaluation.gathering import GatheredDetections, as_columns
from align_detr.evaluation.truth import GroundTruth, ImageKey, image_key, read_truth

logger = logging.getLogger(__name__)

ALIGNMENT_FILE = "alignment.json"
"""The numbers of a report, with those of each class and size, its curves and worst cases."""


class MisalignmentEvaluator(DatasetEvaluator):
    """How well scores say what boxes are worth: the metrics of docs/report.md, beside COCO's AP.

    It stands beside detectron2's COCOEvaluator or our DetectionEvaluator, in any project of detectron2. `dataset_name`:
    a registered data set with annotations. `output_dir`: a folder for ALIGNMENT_FILE (None: no file).
    `max_detections`: how many of an image's best detections of a class count for AP, matching and what follows of it.
    The constructor reads the data set. It raises DatasetError for one that cannot be used, and ConfigError for a
    `max_detections` below 1.
    """

    def __init__(self, *, dataset_name: str, output_dir: str | None = None, max_detections: int = 100) -> None:
        self.max_detections = check_count(max_detections, "dataloader.evaluator.max_detections")
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.truth = read_truth(dataset_name)
        self.reset()

    @property
    def result_names(self) -> list[str]:
        """Names of what `evaluate` returns, as a run writes them: "alignment/olrp" and so on."""
        return [f"alignment/{name}" for name in METRICS] if self.truth.annotations else []

    def reset(self) -> None:
        """Forget the detections of an earlier evaluation."""
        self._found = GatheredDetections(self.truth)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Keep the detections of a batch: `outputs[i]["instances"]` has boxes in pixels of the image of `inputs[i]`.

        Raise NonFinitePrediction for a score or box that is not finite, DatasetError for an image or a class that the
        data set does not have, or for a score outside [0, 1].
        """
        for entry, output in zip(inputs, outputs, strict=True):
            _check_probabilities(output["instances"].scores, image_key(entry))
        self._found.add(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather the detections of all processes, write ALIGNMENT_FILE and return {"alignment": {metric: value}}.

        NaN stands where nothing is to be measured. Return {} on all but the main process, and for a data set without
        annotations.
        """
        found = self._found.of_all_processes()
        if found is None:
            return {}
        name = self.truth.dataset_name
        if not self.truth.annotations:
            logger.warning("The data set '%s' has no annotations, so that there is no alignment to measure.", name)
            return {}
        columns = as_columns(self.truth, found)
        truth = tables_of(self.truth, num_classes=int(columns.label.max(initial=-1)) + 1)
        detections = sort_detections(columns.image - 1, columns.label, columns.score, columns.box)
        numbers = analyse(truth, {name: detections}, max_detections=self.max_detections)
        if self.output_dir is not None:
            path = self.output_dir / ALIGNMENT_FILE
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(numbers, allow_nan=False), encoding="utf-8")
            logger.info("Wrote the numbers of %d detections to %s.", len(detections), path)
        overall = numbers["detectors"][0]["overall"]
        return {"alignment": {key: float("nan") if value is None else value for key, value in overall.items()}}


def _check_probabilities(scores: Tensor, image: ImageKey) -> None:
    """Raise DatasetError for scores outside [0, 1]; those that are not finite are named elsewhere."""
    finite = scores[scores.isfinite()]
    if len(finite) and not 0 <= float(finite.min()) <= float(finite.max()) <= 1:
        raise DatasetError(
            f"Image {image!r} has scores from {float(finite.min()):g} to {float(finite.max()):g}, but the metrics of "
            "calibration need them in [0, 1]: let the model give probabilities."
        )


def tables_of(truth: GroundTruth, num_classes: int = 0) -> Truth:
    """Return the tables of a data set; one that names no classes has at least `num_classes`."""
    annotations = truth.annotations
    names = truth.class_labels()
    names += [str(index) for index in range(len(names), num_classes)]
    return Truth(
        image_ids=list(truth.images),
        file_names=[truth.file_names[key] for key in truth.images],
        category_ids=[truth.category_id(index) for index in range(len(names))],
        class_names=names,
        objects=make_objects(
            image=np.array([a["image_id"] - 1 for a in annotations], dtype=np.int64),
            label=np.array([a["category_id"] - 1 for a in annotations], dtype=np.int64),
            box=[a["bbox"] for a in annotations],
            area=[a["area"] for a in annotations],
            crowd=[a["iscrowd"] for a in annotations],
        ),
    )
