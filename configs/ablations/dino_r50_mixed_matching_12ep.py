"""DINO-R50 with mixed matching and its weighting but the focal loss (table 5). Published: 49.1 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import SigmoidFocalLoss, set_class_loss

from ..common.align import align
from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
set_class_loss(model.criterion, L(SigmoidFocalLoss)(weight=1.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/ablations/dino_r50_mixed_matching_12ep"
