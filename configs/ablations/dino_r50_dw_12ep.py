"""DINO-R50 with DW's two weights (table 1 of Align-DETR, which states no AP) over three copies of each object."""

from detectron2.config import LazyCall as L

from align_detr.modeling import DualWeighting, DualWeightingLoss, set_class_loss

from ..common.align import align
from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
set_class_loss(model.criterion, L(DualWeightingLoss)(weight=1.0, gamma=2.0, power=2.0))
model.criterion.weighting = L(DualWeighting)(beta=5.0, mu=5.0)
train.output_dir = "./output/ablations/dino_r50_dw_12ep"
