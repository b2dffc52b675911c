"""Align-DINO-R50 with the newer Align loss (a reading, see `AlignLoss`), k = 2, 12 epochs. Released: 50.5 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import AlignLoss, set_class_loss

from .align_dino_r50_4scale_k2_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(AlignLoss)(weight=1.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/align_dino_r50_4scale_newer_loss_12ep"
