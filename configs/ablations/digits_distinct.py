"""The ablations' Align-DINO with distinct query selection among proposals and between decoder layers."""

from detectron2.config import LazyCall as L

from align_detr.modeling import DistinctProposals, DistinctQueries

from .digits_mixed import dataloader, lr_multiplier, model, optimizer, train

model.proposals._target_ = DistinctProposals
model.proposals.update(iou=0.8, candidates=3)
model.decoder.query_masks = [L(DistinctQueries)(iou=0.8)]
train.output_dir = "./output/ablations/digits_distinct"
