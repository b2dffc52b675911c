"""Evaluation of detectors. Pictures of runs are in `align_detr.evaluation.figures`."""

from align_detr.evaluation.coco import RESULTS_FILE, DetectionEvaluator
from align_detr.evaluation.evaluate import (
    EvaluationSet,
    build_evaluation_sets,
    evaluate,
    evaluate_sets,
    missing_evaluation,
    require_evaluation,
)
from align_detr.evaluation.metrics import BoxMetrics, box_metrics
from align_detr.evaluation.misalignment import ALIGNMENT_FILE, MisalignmentEvaluator
from align_detr.evaluation.panoptic import PanopticEvaluator
from align_detr.evaluation.truth import GroundTruth, read_truth

__all__ = [
    "ALIGNMENT_FILE",
    "RESULTS_FILE",
    "BoxMetrics",
    "DetectionEvaluator",
    "EvaluationSet",
    "GroundTruth",
    "MisalignmentEvaluator",
    "PanopticEvaluator",
    "box_metrics",
    "build_evaluation_sets",
    "evaluate",
    "evaluate_sets",
    "missing_evaluation",
    "read_truth",
    "require_evaluation",
]
