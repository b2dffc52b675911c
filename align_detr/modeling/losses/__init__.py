"""Losses on matched sets: each a formula in float32 on logits or boxes, one value a row."""

from align_detr.modeling.losses.base import SetLoss
from align_detr.modeling.losses.boxes import GIoULoss, L1Loss
from align_detr.modeling.losses.classification import SoftmaxCrossEntropy
from align_detr.modeling.losses.diagnostics import cardinality_error, class_error

__all__ = ["GIoULoss", "L1Loss", "SetLoss", "SoftmaxCrossEntropy", "cardinality_error", "class_error"]
