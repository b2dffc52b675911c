"""DINO-R50 with Rank-DETR's GIoU-aware focal loss. Not published."""

from detectron2.config import LazyCall as L

from align_detr.modeling import GIoUAwareFocalLoss, set_class_loss

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(GIoUAwareFocalLoss)(weight=1.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/ablations/dino_r50_giou_focal_12ep"
