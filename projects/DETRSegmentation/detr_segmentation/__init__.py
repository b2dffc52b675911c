"""DETR for segmentation (Carion et al. 2020, section 4.4): a mask per query, on any detector of the family.

Importing this package registers the detectors in detectron2, and the names of released weights. `__all__` lists every
class.
"""

from align_detr.checkpoint.conversion import register_release
from align_detr.projects.detr_segmentation.attention import BoxAttention, GaussianBoxAttention
from align_detr.projects.detr_segmentation.checkpoint import (
    convert_panoptic_detr,
    is_panoptic_detr,
    panoptic_detr_config,
)
from align_detr.projects.detr_segmentation.config import add_masks
from align_detr.projects.detr_segmentation.features import MaskFeatures
from align_detr.projects.detr_segmentation.head import ConvBlock, MaskHead
from align_detr.projects.detr_segmentation.losses import DiceLoss, MaskFocalLoss, MaskLoss
from align_detr.projects.detr_segmentation.masks import (
    ClassifyingHiddenHead,
    HiddenHead,
    HiddenPredictions,
    MaskBranch,
    MatchedMasks,
    QueryMasks,
    RefiningHiddenHead,
)
from align_detr.projects.detr_segmentation.meta_arch import SegmentationDeformableDETR, SegmentationDETR
from align_detr.projects.detr_segmentation.panoptic import PanopticMerge

register_release(
    is_panoptic_detr, lambda state, _: convert_panoptic_detr(state), name="panoptic DETR", config=panoptic_detr_config
)

__all__ = [
    "BoxAttention",
    "ClassifyingHiddenHead",
    "ConvBlock",
    "DiceLoss",
    "GaussianBoxAttention",
    "HiddenHead",
    "HiddenPredictions",
    "MaskBranch",
    "MaskFeatures",
    "MaskFocalLoss",
    "MaskHead",
    "MaskLoss",
    "MatchedMasks",
    "PanopticMerge",
    "QueryMasks",
    "RefiningHiddenHead",
    "SegmentationDETR",
    "SegmentationDeformableDETR",
    "add_masks",
]
