"""The detections of every decoder layer, beside those of the last, from one run over the data."""

import copy
import dataclasses
import logging
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.evaluation import DatasetEvaluator, inference_context
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import nn

from align_detr.errors import ConfigError
from align_detr.evaluation.coco import DetectionEvaluator
from align_detr.evaluation.evaluate import EvaluationSet
from align_detr.modeling.batching import indices_by_size
from align_detr.modeling.losses import FusedPostprocess
from align_detr.modeling.meta_arch import DETR
from align_detr.structures import Predictions, Proposals

logger = logging.getLogger(__name__)

FOLDER = "layers"
"""The folder beside the detections of a data set that holds those of every layer."""

Results = list[dict[str, Instances]]
Sizes = Sequence[tuple[int, int]]


class LayerRecording:
    """What a detector hands to its postprocessing: the predictions of all layers, of which it reports the last.

    `take` returns the detections of every layer for the batch that the model has processed last, by the number of the
    layer: from 1 for the decoder's first, and 0 for the encoder's proposals, if the model has proposals that know
    classes. Proposals that know only "object" (`ObjectProposals`) are no detections, and neither are those of a model
    whose scores need an IoU branch, which proposals have not (`FusedPostprocess`).
    """

    def __init__(self, model: DETR) -> None:
        self.model = model
        self._calls: list[tuple[Predictions, Sizes, Predictions | None]] = []
        self._proposed: Predictions | None = None

    def take(self, batched_inputs: Sequence[Mapping[str, Any]]) -> dict[int, Results]:
        """Return {layer: results of the images, as the model returns them}, and forget the batch."""
        calls, self._calls = self._calls, []
        # A model may postprocess its images size by size, but it keeps the order of those of one size.
        waiting = {size: deque(i) for size, i in indices_by_size([x["image"] for x in batched_inputs]).items()}
        found: dict[int, dict[int, Instances]] = defaultdict(dict)
        for predictions, sizes, proposed in calls:
            indices = [waiting[size].popleft() for size in sizes]
            for layer, rows in self._layers(predictions, proposed):
                found[layer].update(zip(indices, self.model.postprocess.forward(rows, sizes), strict=True))
        count = len(batched_inputs)
        return {k: self.model.results([of[i] for i in range(count)], batched_inputs) for k, of in found.items()}

    def _layers(self, predictions: Predictions, proposed: Predictions | None) -> Iterator[tuple[int, Predictions]]:
        """Yield each layer's number and a set whose last row is that layer's."""
        if proposed is not None and not proposed.class_agnostic:
            yield 0, proposed
        for layer in range(len(predictions.logits) // predictions.groups):
            yield layer + 1, first_layers(predictions, layer + 1)

    def _keep_proposals(self, module: nn.Module, arguments: Any, proposals: Proposals) -> None:
        self._proposed = proposals.predictions

    def _keep_predictions(self, module: nn.Module, arguments: tuple[Predictions, Sizes]) -> None:
        proposed = None if isinstance(module, FusedPostprocess) else self._proposed
        self._calls.append((*arguments, proposed))


@contextmanager
def recorded(model: nn.Module) -> Iterator[LayerRecording]:
    """Record the layers of each batch that `model` processes in evaluation, by hooks on two of its parts: `forward`
    itself stays as it is.

    Raise ConfigError for a model that is no `DETR`, whose decoder's layers are unknown.
    """
    if not isinstance(model, DETR):
        raise ConfigError(
            f"{type(model).__name__} is no DETR, whose decoder layers could be read: evaluate it without layers."
        )
    recording = LayerRecording(model)
    handles = [model.postprocess.register_forward_pre_hook(recording._keep_predictions)]
    if model.proposals is not None:
        handles.append(model.proposals.register_forward_hook(recording._keep_proposals))
    try:
        yield recording
    finally:
        for handle in handles:
            handle.remove()


def detect_layers(
    model: nn.Module, loader: Iterable[Sequence[Mapping[str, Any]]]
) -> Iterator[tuple[Sequence[Mapping[str, Any]], dict[int, Results]]]:
    """Yield each batch of `loader` and {layer: its detections}, from one forward pass of the model in evaluation mode.

    The last layer's are the model's own. Raise ConfigError as `recorded`.
    """
    with recorded(model) as recording, inference_context(model), torch.no_grad():
        for inputs in loader:
            model(inputs)
            yield inputs, recording.take(inputs)


class LayerEvaluator(DatasetEvaluator):
    """The evaluation of every layer by copies of `evaluator`, one layer after the other.

    Each writes its detections beside those of `evaluator`, into `layers/layer_<number>.json`, if that one writes any.
    """

    def __init__(self, recording: LayerRecording, evaluator: DetectionEvaluator) -> None:
        self.recording = recording
        self.evaluator = evaluator
        self.reset()

    def reset(self) -> None:
        """Forget the detections of an earlier evaluation."""
        self._found: dict[int, list[tuple[dict[str, Any], Instances]]] = defaultdict(list)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Any]) -> None:
        """Keep every layer's detections of the batch that the model has just processed, as tensors on the host."""
        for layer, results in self.recording.take(inputs).items():
            for entry, result in zip(inputs, results, strict=True):
                name = {key: entry[key] for key in ("image_id", "file_name") if key in entry}
                self._found[layer].append((name, result["instances"].to("cpu")))

    def evaluate(self) -> dict[str, dict[str, float]]:
        """Evaluate each layer; return {"layer_<number>": {metric: percent}}, and {} as `DetectionEvaluator` does."""
        layers = sorted(set().union(*comm.all_gather(set(self._found))))
        results = {}
        for layer in layers:
            logger.info("The encoder's proposals:" if layer == 0 else f"Decoder layer {layer} of {layers[-1]}:")
            one = copy.copy(self.evaluator)
            one.results_file = f"{FOLDER}/{layer_name(layer)}.json"
            one.reset()
            for entry, instances in self._found.pop(layer, ()):
                one.process([entry], [{"instances": instances}])
            for metrics in one.evaluate().values():
                results[layer_name(layer)] = metrics
        return results


def with_layers(sets: Iterable[EvaluationSet], recording: LayerRecording) -> list[EvaluationSet]:
    """Return the sets, of which each evaluation has that of every layer as well.

    Raise ConfigError for a set that is not evaluated by a `DetectionEvaluator`.
    """
    result = []
    for one in sets:
        evaluators = list(one.evaluator) if isinstance(one.evaluator, MutableSequence) else [one.evaluator]
        of_boxes = next((each for each in evaluators if isinstance(each, DetectionEvaluator)), None)
        if of_boxes is None:
            raise ConfigError(
                f"The layers of '{one.name}' cannot be evaluated by {type(evaluators[0]).__name__}: set "
                "dataloader.evaluator to a DetectionEvaluator."
            )
        result.append(EvaluationSet(one.name, one.loader, [*evaluators, LayerEvaluator(recording, of_boxes)]))
    return result


def layer_name(layer: int) -> str:
    """Return the name of a layer among results and files."""
    return f"layer_{layer}"


def layer_files(folder: str | Path) -> dict[int, Path]:
    """Return {layer: its results file} of a folder that `LayerEvaluator` has written, in order."""
    numbers = {int(path.stem.removeprefix("layer_")): path for path in Path(folder).glob("layer_[0-9]*.json")}
    return dict(sorted(numbers.items()))


def first_layers(predictions: Predictions, layers: int) -> Predictions:
    """Return the set of the first `layers` decoder layers, whose last row is what postprocessing reads."""
    rows = slice(layers * predictions.groups)
    iou = None if predictions.iou is None else predictions.iou[rows]
    return dataclasses.replace(predictions, logits=predictions.logits[rows], boxes=predictions.boxes[rows], iou=iou)
