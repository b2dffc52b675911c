"""SMCA with a ResNet-50 on one map (Gao et al. 2021): DETR with 300 queries and a Gaussian prior per attention head.

Focal loss; stem and res2 frozen. Class weight 2 and dropout are Conditional-DETR's.
"""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import (
    FocalCost,
    GIoUCost,
    GIoULoss,
    L1Cost,
    L1Loss,
    SharedHead,
    SigmoidFocalLoss,
    SinePositionEncoding,
    TopKPostprocess,
)
from align_detr.projects.smca import SMCADETR, ExtentNeck, ModulatedDecoder, ModulatedDecoderLayer

from .....configs.common.models.detr_r50 import model

model._target_ = SMCADETR
model.neck = L(ExtentNeck)(
    in_feature="res5",
    in_channels=2048,
    embed_dim=256,
    position=L(SinePositionEncoding)(num_features=128, temperature=10000, normalize=True),
    stride=32,
)
model.queries.num_queries = 300
model.decoder = L(ModulatedDecoder)(
    layer=L(ModulatedDecoderLayer)(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.1, smooth=8.0),
    num_layers=6,
    embed_dim=256,
    norm=L(nn.LayerNorm)(normalized_shape=256),
)
model.head = L(SharedHead)(num_classes=80, embed_dim=256, eps=1e-5)
model.criterion.matcher.costs = [L(FocalCost)(weight=2.0), L(L1Cost)(weight=5.0), L(GIoUCost)(weight=2.0)]
model.criterion.losses = [
    L(SigmoidFocalLoss)(weight=2.0, alpha=0.25, gamma=2.0),
    L(L1Loss)(weight=5.0),
    L(GIoULoss)(weight=2.0),
]
model.postprocess = L(TopKPostprocess)(num_detections=100)
