"""Align-DINO-R50, 4 scales, with position relations in the decoder's self-attention: 12 epochs. Not published."""

from ..common.align import align
from .relation_dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_relation_dino_r50_4scale_12ep"
