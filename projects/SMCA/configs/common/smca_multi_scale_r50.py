"""SMCA with a ResNet-50 on three scales (Gao et al. 2021), its full model: cells of 16, 32 and 64 pixels.

Everything else is as on one map.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import EncoderLayer, SinePositionEncoding
from align_detr.projects.smca import (
    IntraAndMultiScaleEncoder,
    IntraScaleEncoderLayer,
    ScaleSelectiveDecoderLayer,
    ScalesNeck,
)

from .smca_r50 import model

sizes = dict(embed_dim=256, num_heads=8, ffn_dim=2048, dropout=0.1)

model.backbone.out_features = ["res4", "res5"]
model.neck = L(ScalesNeck)(
    in_channels=dict(res4=1024, res5=2048),
    embed_dim=256,
    position=L(SinePositionEncoding)(num_features=128, temperature=10000, normalize=True),
    strides=[16, 32, 64],
    stride=32,
)
model.encoder = L(IntraAndMultiScaleEncoder)(
    intra_layer=L(IntraScaleEncoderLayer)(**sizes),
    multi_layer=L(EncoderLayer)(**sizes),
    num_intra=2,
    num_multi=1,
)
model.decoder.layer = L(ScaleSelectiveDecoderLayer)(**sizes, smooth=8.0, num_scales=3)
