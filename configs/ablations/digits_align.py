"""The ablations' detector with the newer Align loss (a reading, see `AlignLoss`)."""

from detectron2.config import LazyCall as L

from align_detr.modeling import AlignLoss

from .digits_ia_bce import dataloader, lr_multiplier, model, optimizer, train

model.criterion.losses[0] = L(AlignLoss)(weight=2.0, alpha=0.25, gamma=2.0)
train.output_dir = "./output/ablations/digits_align"
