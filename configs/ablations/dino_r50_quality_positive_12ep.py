"""DINO-R50 with w_pos = t, w_neg = 0 for matched queries (table B, row 3). Published: 48.0 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import QualityPositiveLoss, set_class_loss

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(QualityPositiveLoss)(weight=1.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/ablations/dino_r50_quality_positive_12ep"
