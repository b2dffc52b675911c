"""TSP-RCNN on a pretrained MobileNetV2 and 96 photos of COCO: a check of everything on real data, in minutes on a CPU.

Two encoder layers of 128 channels, three levels of proposals.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import MobileNetV2

from .common.coco_mini import dataloader, lr_multiplier, train
from .common.models.tsp_rcnn_r50 import model
from .common.optim import hybrid as optimizer

model.backbone.update(
    bottom_up=L(MobileNetV2)(out_features=["res2", "res3", "res4", "res5"]), out_channels=128, top_block=None
)
model.pixel_std = [58.395, 57.12, 57.375]
_rpn, _stage = model.proposal_generator, model.roi_heads.stages[0]
_rpn.update(in_features=["p3", "p4", "p5"], post_nms_topk=(200, 200))
_rpn.head.update(num_levels=3, num_convs=1, norm="BN")
_rpn.anchor_generator.update(sizes=[[16, 24, 36], [48, 72, 108], [144, 216, 324]], strides=[8, 16, 32])
_stage.transformer.embed_dim = _stage.classifier.embed_dim = _stage.boxes.embed_dim = 128
_stage.transformer.encoder.layer.update(embed_dim=128, ffn_dim=512)
_stage.transformer.encoder.num_layers = 2
_stage.transformer.encoder.norm.normalized_shape = 128

optimizer.lr = 0.02
train.output_dir = "./output/tsp_rcnn_coco_mini"
