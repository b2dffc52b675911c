"""DINO-R50 with an IoU branch, fused into the class score with weight 0.3 (table 4). Published: 49.2 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import FusedPostprocess

from .dino_r50_iou_branch_12ep import dataloader, lr_multiplier, model, optimizer, train

model.postprocess = L(FusedPostprocess)(postprocess=model.postprocess, weight=0.3)
train.output_dir = "./output/ablations/dino_r50_iou_branch_fused_12ep"
