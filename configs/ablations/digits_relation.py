"""The ablations' Align-DINO with position relations in the decoder's self-attention."""

from detectron2.config import LazyCall as L

from align_detr.modeling import PositionRelation

from .digits_mixed import dataloader, lr_multiplier, model, optimizer, train

model.decoder.query_masks = [L(PositionRelation)(num_heads=4)]
train.output_dir = "./output/ablations/digits_relation"
