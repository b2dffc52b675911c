"""DINO-R50 with the VariFocal Loss (table 4). Published: 48.7 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import VariFocalLoss, set_class_loss

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(VariFocalLoss)(weight=1.0, alpha=0.75, gamma=2.0))
train.output_dir = "./output/ablations/dino_r50_vfl_12ep"
