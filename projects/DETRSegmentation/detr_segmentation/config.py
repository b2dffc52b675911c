"""Masks as a change to the config of any detector of the family."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from align_detr.projects.detr_segmentation.attention import BoxAttention
from align_detr.projects.detr_segmentation.head import MaskHead
from align_detr.projects.detr_segmentation.losses import DiceLoss, MaskFocalLoss
from align_detr.projects.detr_segmentation.masks import MaskBranch


def add_masks(
    model: DictConfig,
    *,
    in_channels: dict[str, int],
    level: int = 0,
    embed_dim: int = 256,
    num_heads: int = 8,
    focal: float = 1.0,
    dice: float = 1.0,
) -> None:
    """Give the config `model` a mask branch on the neck's level `level`, with the backbone maps `in_channels`, coarse
    to fine, and its losses, whose weights are `focal` and `dice`; the backbone puts out these maps as well.

    Set `model._target_` to SegmentationDETR, or to SegmentationDeformableDETR for Deformable-DETR and its descendants.
    """
    model.masks = L(MaskBranch)(
        attention=L(BoxAttention)(embed_dim=embed_dim, num_heads=num_heads),
        head=L(MaskHead)(
            embed_dim=embed_dim, num_heads=num_heads, in_features=list(in_channels), in_channels=in_channels
        ),
        level=level,
    )
    model.criterion.losses.extend([L(MaskFocalLoss)(weight=focal), L(DiceLoss)(weight=dice)])
    model.backbone.out_features = sorted({*model.backbone.out_features, *in_channels})
