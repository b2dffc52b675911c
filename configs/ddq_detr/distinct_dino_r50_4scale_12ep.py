"""DINO-R50, 4 scales, with distinct query selection among proposals and between decoder layers: 12 epochs.

The selection alone of DDQ (Zhang et al. 2023), for which no figure was found. DDQ-DETR as a whole, with an auxiliary
branch of 1,350 dense queries in training: 51.3 AP.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import DistinctProposals, DistinctQueries

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.proposals._target_ = DistinctProposals
model.proposals.update(iou=0.8, candidates=3)
model.decoder.query_masks = [L(DistinctQueries)(iou=0.8)]
train.output_dir = "./output/distinct_dino_r50_4scale_12ep"
