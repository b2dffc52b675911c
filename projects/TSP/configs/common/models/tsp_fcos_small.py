"""A TSP-FCOS that trains from scratch on a CPU, for images of a hundred pixels or so: strides 8 to 32, the best 50 of
336 points (in an image of 128 x 128), three encoder layers.

Its losses differ in their weights, since here the classes are what takes long to learn, and in the plain form of GIoU:
the official smoothing hides most of the error of a box that is two cells wide.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import build_small_resnet

from .tsp_fcos_r50 import model

model.backbone.bottom_up = L(build_small_resnet)(out_features=["res3", "res4", "res5"])
model.backbone.update(out_channels=96, top_block=None)
model.points.update(in_features=["p3", "p4", "p5"], strides=[8, 16, 32], channels=96, num_convs=1)
# The official 0.01 is small beside Adam's steps, and GroupNorm lets no gradient enlarge it: classes would take long.
model.points.init_std = 0.05
model.points.position.update(num_features=64, temperature=20)
model.assigner.update(sizes=[32, 64], radius=1.0)  # most objects on the finest level, four points each
model.selection.update(num_queries=50, keep=(1.0, 1.0))
model.encoding.update(in_channels=192, embed_dim=128, num_levels=3)
model.encoder.layer.update(embed_dim=128, num_heads=4, ffn_dim=512, dropout=0.0)
model.encoder.num_layers = 3
model.encoder.norm.normalized_shape = 128
model.head.update(embed_dim=128, num_levels=3)
model.pixel_std = [58.395, 57.12, 57.375]

_matched, _foreground = model.criterion.matched, model.criterion.foreground
_matched.losses[0].weight = 4.0
_matched.matcher.costs[1].smooth = 0.0
_foreground.losses[0].smooth = 0.0
model.criterion.dense.weight = 2.0
