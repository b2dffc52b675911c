"""The ablations' detector with DW's two weights over three copies of each object."""

from detectron2.config import LazyCall as L

from align_detr.modeling import DualWeighting, DualWeightingLoss, set_class_loss

from .digits_mixed import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(DualWeightingLoss)(weight=2.0, gamma=2.0, power=2.0))
model.criterion.weighting = L(DualWeighting)(beta=5.0, mu=5.0)
train.output_dir = "./output/ablations/digits_dw"
