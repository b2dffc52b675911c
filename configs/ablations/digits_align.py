"""The ablations' detector with the newer Align loss (a reading, see `AlignLoss`)."""

from detectron2.config import LazyCall as L

from align_detr.modeling import AlignLoss, set_class_loss

from .digits_ia_bce import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(AlignLoss)(weight=2.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/ablations/digits_align"
