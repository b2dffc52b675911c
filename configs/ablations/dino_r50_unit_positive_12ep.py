"""DINO-R50 with w_pos = 1, w_neg = 0 for matched queries (table B, row 2). Published: 47.5 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import UnitPositiveLoss, set_class_loss

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(UnitPositiveLoss)(weight=1.0, gamma=2.0))
train.output_dir = "./output/ablations/dino_r50_unit_positive_12ep"
