"""A DETR that trains from scratch on a CPU, for images of a hundred pixels or so: width 128, 20 queries."""

from detectron2.config import LazyCall as L

from align_detr.modeling.backbone import build_small_resnet

from .detr_r50 import model

model.backbone = L(build_small_resnet)(out_features=["res4"])
model.neck.update(in_feature="res4", in_channels=128, embed_dim=128)
model.neck.position.update(num_features=64, temperature=20)
model.encoder.num_layers = 1
model.decoder.num_layers = 3
for layer in (model.encoder.layer, model.decoder.layer):
    layer.update(embed_dim=128, num_heads=4, ffn_dim=512, dropout=0.0)
model.decoder.norm.normalized_shape = 128
model.queries.update(num_queries=20, embed_dim=128)
model.head.embed_dim = 128
