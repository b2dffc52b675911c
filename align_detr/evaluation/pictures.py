"""Pictures of an evaluation: ground truth beside what the model finds."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from PIL import Image

from align_detr.checkpoint.files import disk_problems
from align_detr.evaluation.evaluate import EvaluationSet
from align_detr.evaluation.truth import GroundTruth, image_key
from align_detr.inference.drawing import draw_boxes

logger = logging.getLogger(__name__)

FOLDER = "pictures"
_THRESHOLD = 0.3  # least score of a detection in a picture
_MOST = 100  # detections in a picture


class PictureEvaluator(DatasetEvaluator):
    """Pictures of the main process's first `count` images with objects: their objects on the left, on the right the
    detections of a score of 0.3 or more, as the evaluation got them.

    They are written as PNG files into `folder`, in place of those of the evaluation before, and in training to
    tensorboard, at their iteration.
    """

    def __init__(self, truth: GroundTruth, *, count: int, folder: Path) -> None:
        self.truth = truth
        self.count = count
        self.folder = folder
        of_number = {number: key for key, number in truth.images.items()}
        self._objects: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
        for annotation in truth.annotations:
            self._objects[of_number[annotation["image_id"]]].append(annotation)
        self.reset()

    def reset(self) -> None:
        """Forget the pictures of an earlier evaluation."""
        self._pictures: dict[str, Image.Image] = {}

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]) -> None:
        """Draw the images of a batch until there are enough."""
        for entry, output in zip(inputs, outputs, strict=True):
            key = image_key(entry)
            if len(self._pictures) < self.count and comm.is_main_process() and self._objects.get(key):
                self._pictures[f"{Path(self.truth.file_names[key]).stem}_{key}"] = self._draw(entry, output, key)

    def evaluate(self) -> dict[str, Any]:
        """Write the pictures; return {}."""
        if comm.is_main_process() and self._pictures:
            with disk_problems(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                for old in self.folder.glob("*.png"):
                    old.unlink()
                for name, picture in self._pictures.items():
                    picture.save(self.folder / f"{_file_name(name)}.png")
            for name, picture in self._pictures.items():
                _to_tensorboard(f"{self.folder.name}/{name}", picture)
            logger.info(
                "Pictures of %d images (left: ground truth, right: detections) are in %s.",
                len(self._pictures),
                self.folder,
            )
        return {}

    def _draw(self, entry: Mapping[str, Any], output: Mapping[str, Any], key: Any) -> Image.Image:
        """Return ground truth and detections of an image side by side, in the size that the model gets."""
        pixels = entry["image"].clamp(0, 255).to("cpu", torch.uint8)
        image = Image.fromarray(np.ascontiguousarray(pixels.permute(1, 2, 0).numpy()))
        found = output["instances"].to("cpu")
        height, width = found.image_size
        scale = np.array([image.width / width, image.height / height] * 2)
        objects = self._objects[key]
        corners = [(x, y, x + w, y + h) for x, y, w, h in (each["bbox"] for each in objects)]
        left = self._with_boxes(image, scale * corners, [each["category_id"] - 1 for each in objects], None)
        found = found[found.scores >= _THRESHOLD][:_MOST]
        boxes = scale * found.pred_boxes.tensor.numpy()
        right = self._with_boxes(image, boxes, found.pred_classes.tolist(), found.scores.tolist())
        both = Image.new("RGB", (2 * image.width, image.height))
        both.paste(left, (0, 0))
        both.paste(right, (image.width, 0))
        return both

    def _with_boxes(
        self, image: Image.Image, boxes: np.ndarray, classes: Sequence[int], scores: Sequence[float] | None
    ) -> Image.Image:
        labels = self.truth.class_labels()
        names = [*labels, *map(str, range(len(labels), max(classes, default=-1) + 1))]  # data may name no classes
        return draw_boxes(image, boxes=boxes.tolist(), scores=scores, classes=classes, names=names)


def with_pictures(sets: Iterable[EvaluationSet], count: int, output_dir: str | Path) -> list[EvaluationSet]:
    """Return the sets, of which each evaluation leaves `count` pictures in a folder of `output_dir`, if its evaluator
    knows the ground truth; that of a DetectionEvaluator is the attribute `truth`.
    """
    sets, result = list(sets), []
    for one in sets:
        evaluators = list(one.evaluator) if isinstance(one.evaluator, MutableSequence) else [one.evaluator]
        truth = next((each.truth for each in evaluators if isinstance(getattr(each, "truth", None), GroundTruth)), None)
        if truth is not None and count > 0:
            folder = Path(output_dir) / FOLDER / (_file_name(one.name) if len(sets) > 1 else "")
            evaluators.append(PictureEvaluator(truth, count=count, folder=folder))
        result.append(EvaluationSet(one.name, one.loader, evaluators))
    return result


def _to_tensorboard(name: str, picture: Image.Image) -> None:
    """Leave a picture in the event storage for tensorboard's writer, if there are both."""
    try:
        storage = get_event_storage()
    except (AssertionError, IndexError):  # there is none outside of a training loop
        return
    if find_spec("tensorboard") is not None:  # nothing else would take the pictures out again
        storage.put_image(name, np.asarray(picture).transpose(2, 0, 1))


def _file_name(name: str) -> str:
    """Return a name with letters, digits and signs that every file system takes."""
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)
