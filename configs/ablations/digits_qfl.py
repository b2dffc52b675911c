"""The ablations' detector with the Quality Focal Loss."""

from detectron2.config import LazyCall as L

from align_detr.modeling import QualityFocalLoss, set_class_loss

from .digits_ia_bce import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(QualityFocalLoss)(weight=2.0, gamma=2.0))
train.output_dir = "./output/ablations/digits_qfl"
