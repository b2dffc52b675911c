"""A TSP-FCOS that trains from scratch on a CPU, for images of about 100 pixels: strides 8 to 32, three encoder layers.

Of 336 points (in an image of 128 x 128) the best 50 become tokens. The losses have other weights, since classes take
longest to learn here, and plain GIoU: the official smoothing hides most of the error of a box that is two cells wide.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import build_small_resnet, class_loss_of

from .tsp_fcos_r50 import model

model.backbone.bottom_up = L(build_small_resnet)(out_features=["res3", "res4", "res5"])
model.backbone.update(out_channels=96, top_block=None)
model.points.update(in_features=["p3", "p4", "p5"], strides=[8, 16, 32], channels=96, num_convs=1)
# The official 0.01 is small against Adam's steps, and GroupNorm lets no gradient enlarge it: slow classes.
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
class_loss_of(_matched).weight = 4.0
_matched.matcher.costs[1].smooth = 0.0
_foreground.losses[0].smooth = 0.0
model.criterion.dense.weight = 2.0
