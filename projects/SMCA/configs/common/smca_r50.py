"""SMCA with a ResNet-50 on one map (Gao et al. 2021): 300 queries and a Gaussian prior per attention head.

Focal loss, class weight 2 and dropout are Conditional-DETR's; stem and res2 frozen.
"""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import LearnedQueries, SinePositionEncoding
from align_detr.projects.smca import SMCADETR, ExtentNeck, ModulatedDecoder, ModulatedDecoderLayer

from .....configs.common.models.conditional_detr_r50 import model

model._target_ = SMCADETR
model.backbone.freeze_at = 2
model.neck = L(ExtentNeck)(
    in_feature="res5",
    in_channels=2048,
    embed_dim=256,
    position=L(SinePositionEncoding)(num_features=128, temperature=10000, normalize=True),
    stride=32,
)
model.queries = L(LearnedQueries)(num_queries=300, embed_dim=256)
model.decoder = L(ModulatedDecoder)(
    layer=L(ModulatedDecoderLayer)(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.1, smooth=8.0),
    num_layers=6,
    embed_dim=256,
    norm=L(nn.LayerNorm)(normalized_shape=256),
)
model.head.eps = 1e-5
model.criterion.matcher.costs[2].eps = model.criterion.losses[2].eps = 0.0  # of GIoU
model.postprocess.num_detections = 100
