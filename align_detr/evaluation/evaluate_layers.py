"""Evaluation of every decoder layer: its detections, and the matching that trains it."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from torch import nn

from align_detr.checkpoint.files import write_file
from align_detr.evaluation.assignment_numbers import describe_assignments, instability_of_layers
from align_detr.evaluation.assignments import record_assignments
from align_detr.evaluation.evaluate import EvaluationSet, evaluate_sets
from align_detr.evaluation.layers import FOLDER, LayerEvaluator, recorded, with_layers
from align_detr.structures import MAIN

logger = logging.getLogger(__name__)

MATCHING_FILE = "matching.json"
"""Numbers of the matching, beside the detections of every layer."""


def evaluate_layers(
    sets: Sequence[EvaluationSet], model: nn.Module, other: nn.Module | None = None
) -> Mapping[str, Any]:
    """Evaluate as `evaluate_sets` does, and every layer as well; return the results of both.

    The detections of every layer, and MATCHING_FILE, lie in the folder `layers` of each set's detections. `other` is
    the model with the weights of another checkpoint, whose matching is compared layer by layer
    (`between_checkpoints`). A set whose inputs have no boxes has no MATCHING_FILE.
    """
    with recorded(model) as recording:
        with_each = with_layers(sets, recording)
        results = evaluate_sets(with_each, model)
    for one in with_each:
        numbers = describe_matching(one, model, other)
        folder = next(x.evaluator.output_dir for x in one.evaluator if isinstance(x, LayerEvaluator))
        if numbers and folder is not None and comm.is_main_process():
            write_numbers(folder / FOLDER / MATCHING_FILE, numbers)
    return results


def describe_matching(one: EvaluationSet, model: nn.Module, other: nn.Module | None = None) -> dict[str, Any]:
    """Return the numbers of a model's assignments on a test set: {"sets": see `describe_assignments`,
    "between_checkpoints": of `main`, see `instability_of_layers`, or None}; {} on all but the main process, and for a
    set without boxes, with a warning.
    """
    images: Any = getattr(one.loader, "dataset", None)
    if images is not None and len(images) and "instances" not in images[0]:
        logger.warning(
            "The inputs of '%s' have no boxes, so that there is no matching to describe: use DetrMapper in "
            "dataloader.test.mapper.",
            one.name,
        )
        return {}
    pairs = record_assignments(model, one.loader)
    others = None if other is None else record_assignments(other, one.loader)
    if pairs is None:
        return {}
    between = None if others is None else instability_of_layers(pairs[MAIN], others[MAIN])
    learned = getattr(model, "proposals", None) is None
    return {"sets": describe_assignments(pairs, learned=learned), "between_checkpoints": between}


def write_numbers(path: Path, numbers: Mapping[str, Any]) -> None:
    """Write numbers as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, lambda file: file.write(json.dumps(numbers, indent=1, allow_nan=False).encode()))
    logger.info("Wrote the numbers of the matching to %s.", path)
