"""Conditional-DETR with a ResNet-50 (Meng et al. 2021): 300 queries, 6 + 6 layers, dropout 0.1, class weight 2.

The settings are detrex's. The authors' code bounds logits with 1e-5 instead of 1e-3, adds nothing to the overlaps
instead of 1e-6, keeps 100 detections instead of 300 and also freezes res2 (freeze_at=2):
`conditional_detr_r50_official.py` has these settings.

To train as detrex does, without the padding mask in the decoder's cross-attention, override:
+model.decoder.layer.mask_padding=False +model.decoder.first_layer.mask_padding=False
"""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import (
    ConditionalDecoderLayer,
    ConditionalDETR,
    ConditionalPosition,
    ConditionalQueries,
    Decoder,
    FirstConditionalDecoderLayer,
    FocalCost,
    GIoUCost,
    GIoULoss,
    L1Cost,
    L1Loss,
    SharedHead,
    SigmoidFocalLoss,
    TopKPostprocess,
)

from .detr_r50 import model

sizes = dict(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.1)

model._target_ = ConditionalDETR
model.backbone.freeze_at = 1
model.queries = L(ConditionalQueries)(num_queries=300, embed_dim=256)
model.decoder = L(Decoder)(
    layer=L(ConditionalDecoderLayer)(**sizes),
    first_layer=L(FirstConditionalDecoderLayer)(**sizes),
    num_layers=6,
    norm=L(nn.LayerNorm)(normalized_shape=256),
    query_position=L(ConditionalPosition)(embed_dim=256, temperature=10000),
)
model.head = L(SharedHead)(num_classes=80, embed_dim=256)
model.criterion.matcher.costs = [L(FocalCost)(weight=2.0), L(L1Cost)(weight=5.0), L(GIoUCost)(weight=2.0, eps=1e-6)]
model.criterion.losses = [
    L(SigmoidFocalLoss)(weight=2.0, alpha=0.25, gamma=2.0),
    L(L1Loss)(weight=5.0),
    L(GIoULoss)(weight=2.0, eps=1e-6),
]
model.postprocess = L(TopKPostprocess)(num_detections=300)
