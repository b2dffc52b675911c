"""H-Deformable-DETR-R50 with IA-BCE, 12 epochs (table 7). Published: 49.3 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling.losses import IABCELoss

from ..h_deformable_detr.h_deformable_detr_r50_12ep import dataloader, lr_multiplier, model, optimizer, train

model.criterion.losses[0] = L(IABCELoss)(weight=model.criterion.losses[0].weight, alpha=0.25, gamma=2.0)
train.output_dir = "./output/ablations/h_deformable_detr_r50_ia_bce_12ep"
