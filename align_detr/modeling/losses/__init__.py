"""Losses on matched sets, formulas in float32 on logits or boxes, with one value per row; docs/losses.md lists them."""

from align_detr.modeling.losses.align import (
    AlignLoss,
    EqualGapLoss,
    GapPositiveLoss,
    IABCELoss,
    MuSuLoss,
    QualityLoss,
    QualityPositiveLoss,
    TOODLoss,
    UnitPositiveLoss,
)
from align_detr.modeling.losses.base import SetLoss
from align_detr.modeling.losses.binary import BinaryLoss, FocusedLoss, SigmoidFocalLoss
from align_detr.modeling.losses.boxes import GIoULoss, L1Loss
from align_detr.modeling.losses.classification import SoftmaxCrossEntropy
from align_detr.modeling.losses.diagnostics import cardinality_error, class_error
from align_detr.modeling.losses.iou_aware import (
    DualWeightingLoss,
    GIoUAwareFocalLoss,
    MatchabilityAwareLoss,
    PositionSupervisedLoss,
    QualityFocalLoss,
    VariFocalLoss,
    rescaled_squares,
)
from align_detr.modeling.losses.iou_branch import FusedPostprocess, IoUBranchLoss
from align_detr.modeling.losses.quality import alignment_quality

__all__ = [
    "AlignLoss",
    "BinaryLoss",
    "DualWeightingLoss",
    "EqualGapLoss",
    "FocusedLoss",
    "FusedPostprocess",
    "GIoUAwareFocalLoss",
    "GIoULoss",
    "GapPositiveLoss",
    "IABCELoss",
    "IoUBranchLoss",
    "L1Loss",
    "MatchabilityAwareLoss",
    "MuSuLoss",
    "PositionSupervisedLoss",
    "QualityFocalLoss",
    "QualityLoss",
    "QualityPositiveLoss",
    "SetLoss",
    "SigmoidFocalLoss",
    "SoftmaxCrossEntropy",
    "TOODLoss",
    "UnitPositiveLoss",
    "VariFocalLoss",
    "alignment_quality",
    "cardinality_error",
    "class_error",
    "rescaled_squares",
]
