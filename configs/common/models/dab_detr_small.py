"""A DAB-DETR that trains from scratch on a CPU, for images of about 100 pixels: stride 16, 20 anchors, 1 + 3 layers.

As in the small DETR, the encoder also adds the positions to the tokens.
"""

from detectron2.config import LazyCall as L
from torch import nn

from align_detr.modeling import InputPositionEncoder, PreNormEncoderLayer, build_small_resnet, class_loss_of

from .dab_detr_r50 import model

sizes = dict(embed_dim=128, num_heads=4, ffn_dim=512)

model.backbone = L(build_small_resnet)(out_features=["res4"])
model.neck.update(in_feature="res4", in_channels=128, embed_dim=128)
model.neck.position.num_features = 64
model.encoder = L(InputPositionEncoder)(
    layer=L(PreNormEncoderLayer)(**sizes, dropout=0.0),
    num_layers=1,
    norm=L(nn.LayerNorm)(normalized_shape=128),
    content_scale=5.0,
)
model.queries.update(num_queries=20, embed_dim=128)
model.decoder.num_layers = 3
model.decoder.norm.normalized_shape = 128
model.decoder.query_position.update(embed_dim=128, temperature=20)
for layer in (model.decoder.layer, model.decoder.first_layer):
    layer.update(**sizes)
model.head.embed_dim = 128
class_loss_of(model.criterion).weight = 2.0
model.postprocess.num_detections = 100
