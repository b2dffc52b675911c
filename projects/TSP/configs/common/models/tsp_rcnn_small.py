"""A TSP-RCNN that trains from scratch on a CPU, for images of about 100 pixels.

Strides 8 to 32, 100 proposals, three layers of 128 channels.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import build_small_resnet

from .tsp_rcnn_r50 import model

model.backbone.update(
    bottom_up=L(build_small_resnet)(out_features=["res3", "res4", "res5"]), out_channels=96, top_block=None
)
_rpn, _heads = model.proposal_generator, model.roi_heads
_rpn.update(in_features=["p3", "p4", "p5"], pre_nms_topk=(200, 200), post_nms_topk=(100, 100))
_rpn.head.update(num_anchors=6, num_levels=3, num_convs=1, norm="BN")
_rpn.anchor_generator.update(sizes=[[16, 23], [32, 45], [64, 90]], strides=[8, 16, 32], offset=0.5)
_heads.in_features = ["p3", "p4", "p5"]
_heads.pooler.update(scales=[1 / 8, 1 / 16, 1 / 32], canonical_box_size=64)  # boxes of 64 pixels belong to p4
_heads.sampler.batch_size_per_image = 100
_stage = _heads.stages[0]
_stage.transformer.embed_dim = _stage.classifier.embed_dim = _stage.boxes.embed_dim = 128
_stage.transformer.encoder.layer.update(embed_dim=128, num_heads=4, ffn_dim=512, dropout=0.0)
_stage.transformer.encoder.num_layers = 3
_stage.transformer.encoder.norm.normalized_shape = 128
model.pixel_std = [58.395, 57.12, 57.375]
