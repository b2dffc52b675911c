"""DINO-R50 with IA-BCE alone: one-to-one matching, no weighting (tables 4, 5, 8 and B). Published: 50.0 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import IABCELoss, set_class_loss

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(IABCELoss)(weight=1.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/ablations/dino_r50_ia_bce_12ep"
