"""COCO's evaluation of any registered data set, as a detectron2 evaluator."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.evaluation import DatasetEvaluator
from tabulate import tabulate

from align_detr.checks import check_count
from align_detr.evaluation.gathering import GatheredDetections, ImageDetections, as_columns
from align_detr.evaluation.libraries import find_library
from align_detr.evaluation.metrics import BoxMetrics, box_metrics, metric_names
from align_detr.evaluation.truth import GroundTruth, ImageKey, read_truth

logger = logging.getLogger(__name__)

RESULTS_FILE = "coco_instances_results.json"
"""The detections in COCO's results format, under the name that detectron2's evaluator gives them."""


class DetectionEvaluator(DatasetEvaluator):
    """COCO's AP of boxes, with the ground truth of the records that `load_dataset` gives for `dataset_name`.

    The numbers are pycocotools' on the annotation file, where there is one. `output_dir`: a folder for RESULTS_FILE,
    which has the data set's original image and category ids (None: no file). `max_detections`: how many of an image's
    best detections of a class count (COCO: 100); a warning says if an image has more objects of one. A data set
    without any annotation has no AP; its detections are kept. `library`: "pycocotools", "hotcoco", which is faster, or
    "auto": hotcoco if it is installed; the numbers are the same. The constructor reads the data set. It raises
    DatasetError for one that cannot be used, and ConfigError for a `max_detections` below 1 or an unknown `library`.
    The attribute `results_file` is the path of the file in that folder.
    """

    def __init__(
        self, *, dataset_name: str, output_dir: str | None = None, max_detections: int = 100, library: str = "auto"
    ) -> None:
        self.max_detections = check_count(max_detections, "dataloader.evaluator.max_detections")
        find_library(library)  # an error now, not after the evaluation
        self.library = library
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.results_file = RESULTS_FILE
        self.truth = read_truth(dataset_name)
        self.reset()
        _warn_of_crowded_images(self.truth, max_detections)
        _warn_of_empty_boxes(self.truth)

    @property
    def result_names(self) -> list[str]:
        """Names of what `evaluate` returns, as a run writes them: "bbox/AP" and so on; [] if there is no AP."""
        if not self.truth.annotations:
            return []
        names = [*metric_names(self.max_detections), *(f"AP-{label}" for label in self.truth.class_labels())]
        return [f"bbox/{name}" for name in names]

    def reset(self) -> None:
        """Forget the detections of an earlier evaluation."""
        self._found = GatheredDetections(self.truth)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Keep the detections of a batch: `outputs[i]["instances"]` has boxes in pixels of the image of `inputs[i]`.

        Raise NonFinitePrediction for a score or box that is not finite, DatasetError for an image or a class that the
        data set does not have.
        """
        self._found.add(inputs, outputs)

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Gather the detections of all processes, write RESULTS_FILE and return {"bbox": {metric: percent}}.

        Beside COCO's numbers there is an "AP-<class>" per class. NaN stands where no object counts. Return {} on all
        but the main process, and for a data set without annotations.
        """
        found = self._found.of_all_processes()
        if found is None:
            return {}
        name = self.truth.dataset_name
        if self.output_dir is not None:
            _write_results(self.output_dir / self.results_file, self.truth, found)
        if not self.truth.annotations:
            logger.warning("The data set '%s' has no annotations, so that there is no AP of it.", name)
            return {}
        metrics = box_metrics(
            num_images=len(self.truth.images),
            num_classes=len(self.truth.class_names),
            annotations=self.truth.annotations,
            detections=as_columns(self.truth, found),
            max_detections=self.max_detections,
            library=self.library,
        )
        logger.info("Evaluation of %s:\n%s", name, _tables(self.truth, metrics))
        per_class = zip(self.truth.class_labels(), metrics.per_class, strict=True)
        return {"bbox": {**metrics.summary, **{f"AP-{label}": ap for label, ap in per_class}}}


def _warn_of_crowded_images(truth: GroundTruth, max_detections: int) -> None:
    """Warn if an image has more objects of a class than detections count."""
    file_name, label, objects = truth.most_objects()
    if objects > max_detections:
        logger.warning(
            "The image %s of the data set '%s' has %d objects of class %s, but only the %d best detections of a class "
            "count in an image: set dataloader.evaluator.max_detections=%d, and model.postprocess.num_detections to at "
            "least as many.",
            file_name,
            truth.dataset_name,
            objects,
            label,
            max_detections,
            objects,
        )


def _warn_of_empty_boxes(truth: GroundTruth) -> None:
    """Warn of boxes without width or height, which overlap nothing."""
    empty = sum(not a["iscrowd"] and min(a["bbox"][2:]) <= 0 for a in truth.annotations)
    if empty:
        logger.warning(
            "The data set '%s' has %d boxes without width or height, which COCO's evaluation counts as missed whatever "
            "a model finds: remove them.",
            truth.dataset_name,
            empty,
        )


def _write_results(path: Path, truth: GroundTruth, found: Mapping[ImageKey, ImageDetections]) -> None:
    """Write the detections in COCO's results format, with the data set's original image and category ids."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = ((key, found[key]) for key in truth.images if key in found)
    with path.open("w", encoding="utf-8") as file:
        file.write("[")
        for number, row in enumerate(_rows(truth, parts)):
            file.write(f"{', ' * (number > 0)}{json.dumps(row, default=lambda value: value.item())}")
        file.write("]")
    logger.info("Wrote %d detections to %s.", sum(len(each) for each in found.values()), path)


def _rows(truth: GroundTruth, parts: Iterable[tuple[ImageKey, ImageDetections]]) -> Iterator[dict[str, Any]]:
    for key, each in parts:
        columns = (each.label.tolist(), each.box.tolist(), each.score.tolist())
        for label, box, score in zip(*columns, strict=True):
            yield {"image_id": key, "category_id": truth.category_id(label), "bbox": box, "score": score}


def _tables(truth: GroundTruth, metrics: BoxMetrics) -> str:
    """Return two tables: COCO's numbers, and of each class its AP, objects and images with such an object."""
    summary = tabulate([metrics.summary.values()], headers=list(metrics.summary), tablefmt="pipe", floatfmt=".3f")
    rows = [
        (label, ap, *counts)
        for label, ap, counts in zip(truth.class_labels(), metrics.per_class, truth.class_counts(), strict=True)
    ]
    per_class = tabulate(rows, headers=["class", "AP", "boxes", "images"], tablefmt="pipe", floatfmt=".3f")
    return f"{summary}\n\n{per_class}"
