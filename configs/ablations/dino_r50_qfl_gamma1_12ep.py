"""DINO-R50 with the Quality Focal Loss, gamma 1 (table 4). Published: 48.6 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import QualityFocalLoss, set_class_loss

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(QualityFocalLoss)(weight=1.0, gamma=1.0))
train.output_dir = "./output/ablations/dino_r50_qfl_gamma1_12ep"
