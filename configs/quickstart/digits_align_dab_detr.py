"""The small DAB-DETR on the built-in digits, aligned."""

from ..common.align import align
from .digits_dab_detr import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/digits_align_dab_detr"
