"""Anchor-DETR (Wang et al. 2022): queries are anchor points with several patterns each, and attention is decoupled.

Importing this package registers the detector in detectron2, and the names of published weights. `__all__` lists every
class.
"""

from align_detr.checkpoint.conversion import register_release
from align_detr.projects.anchor_detr.attention import RowColumnAttention
from align_detr.projects.anchor_detr.checkpoint import anchor_config, convert_anchor_detr, is_anchor_detr
from align_detr.projects.anchor_detr.layers import RowColumnDecoderLayer, RowColumnEncoderLayer, RowColumnPosition
from align_detr.projects.anchor_detr.meta_arch import AnchorDETR
from align_detr.projects.anchor_detr.neck import AnchorMemory, AnchorNeck
from align_detr.projects.anchor_detr.position import PointEncoding, RowColumnEncoding
from align_detr.projects.anchor_detr.queries import AnchorPointQueries

register_release(
    is_anchor_detr,
    lambda state, num_classes: convert_anchor_detr(state, num_classes=num_classes),
    name="Anchor-DETR",
    config=anchor_config,
)

__all__ = [
    "AnchorDETR",
    "AnchorMemory",
    "AnchorNeck",
    "AnchorPointQueries",
    "PointEncoding",
    "RowColumnAttention",
    "RowColumnDecoderLayer",
    "RowColumnEncoderLayer",
    "RowColumnEncoding",
    "RowColumnPosition",
]
