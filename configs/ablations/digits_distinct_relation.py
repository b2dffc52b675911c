"""The ablations' Align-DINO with distinct queries and position relations, the two ideas of the model that gain most."""

from detectron2.config import LazyCall as L

from align_detr.modeling import PositionRelation

from .digits_distinct import dataloader, lr_multiplier, model, optimizer, train

model.decoder.query_masks.append(L(PositionRelation)(num_heads=4))
train.output_dir = "./output/ablations/digits_distinct_relation"
