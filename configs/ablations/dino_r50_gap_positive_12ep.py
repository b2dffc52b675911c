"""DINO-R50 with w_pos = (t - s)^2, w_neg = (1 - t) s^2 for matched queries (table B, row 5). Published: 49.8 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import GapPositiveLoss, set_class_loss

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(GapPositiveLoss)(weight=1.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/ablations/dino_r50_gap_positive_12ep"
