"""DINO-R50 with an IoU branch whose score is not used in evaluation (table 4, IoU branch*). Published: 49.0 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import IoUBranchLoss, LayerwiseIoUHead

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.head._target_ = LayerwiseIoUHead
model.criterion.losses.append(L(IoUBranchLoss)(weight=1.0))
train.output_dir = "./output/ablations/dino_r50_iou_branch_12ep"
