"""Anchor-DETR with a ResNet-50 (Wang et al. 2022): 300 anchor points with 3 patterns each, 6 + 6 layers.

Row-column decoupled attention, feed-forward blocks of 1024, no dropout, class weight 2, group norm after the
projection; stem and res2 frozen.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import Decoder, Encoder
from align_detr.projects.anchor_detr import (
    AnchorDETR,
    AnchorNeck,
    AnchorPointQueries,
    RowColumnDecoderLayer,
    RowColumnEncoderLayer,
    RowColumnEncoding,
    RowColumnPosition,
)

from .....configs.common.models.conditional_detr_r50 import model

sizes = dict(embed_dim=256, num_heads=8, ffn_dim=1024, dropout=0.0)

model._target_ = AnchorDETR
model.backbone.freeze_at = 2
model.neck = L(AnchorNeck)(
    in_feature="res5",
    in_channels=2048,
    embed_dim=256,
    position=L(RowColumnEncoding)(embed_dim=256, temperature=10000),
    num_groups=32,
)
model.encoder = L(Encoder)(layer=L(RowColumnEncoderLayer)(**sizes), num_layers=6)
model.queries = L(AnchorPointQueries)(num_queries=300, num_patterns=3, embed_dim=256)
model.decoder = L(Decoder)(layer=L(RowColumnDecoderLayer)(**sizes), num_layers=6, query_position=L(RowColumnPosition)())
model.head.update(size_logit=-2.0, eps=1e-3)
model.postprocess.num_detections = 100
