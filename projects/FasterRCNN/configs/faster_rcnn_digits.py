"""A small Faster R-CNN from scratch on the built-in digits, on the CPU.

The proposals are those of the small TSP-RCNN; two layers of 256 channels replace its transformer.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import build_small_resnet

from ....configs.common.data.digits import dataloader
from ....configs.common.from_scratch import lr_multiplier, optimizer, train
from .common.faster_rcnn_r50 import model

model.backbone.update(
    bottom_up=L(build_small_resnet)(out_features=["res3", "res4", "res5"]), out_channels=96, top_block=None
)
_rpn, _heads = model.proposal_generator, model.roi_heads
_rpn.update(in_features=["p3", "p4", "p5"], pre_nms_topk=(200, 200), post_nms_topk=(100, 100))
_rpn.head.num_anchors = 6
_rpn.anchor_generator.update(sizes=[[16, 23], [32, 45], [64, 90]], strides=[8, 16, 32], offset=0.5)
_heads.update(box_in_features=["p3", "p4", "p5"], batch_size_per_image=100, num_classes=10)
_heads.box_pooler.update(scales=[1 / 8, 1 / 16, 1 / 32], canonical_box_size=64)  # boxes of 64 pixels belong to p4
_heads.box_head.fc_dims = [256, 256]
model.pixel_std = [58.395, 57.12, 57.375]

train.output_dir = "./output/faster_rcnn_digits"
