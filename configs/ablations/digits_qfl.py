"""The ablations' detector with the Quality Focal Loss."""

from detectron2.config import LazyCall as L

from align_detr.modeling import QualityFocalLoss

from .digits_ia_bce import dataloader, lr_multiplier, model, optimizer, train

model.criterion.losses[0] = L(QualityFocalLoss)(weight=2.0, gamma=2.0)
train.output_dir = "./output/ablations/digits_qfl"
