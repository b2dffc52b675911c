"""Conditional-DETR-R50 with the settings of the authors' repository, for its weights. Published: 41.0 AP.

Differences from detrex's settings: logits bounded with 1e-5, nothing added to the overlaps, 100 detections, the stem
and the first stage frozen. Read in the authors' code; no file of theirs was at hand, so neither its keys
(`align_detr/checkpoint/conditional.py`) nor its AP are checked.
"""

from .conditional_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.freeze_at = 2
model.head.eps = 1e-5
model.criterion.matcher.costs[2].eps = 0.0
model.criterion.losses[2].eps = 0.0
model.postprocess.num_detections = 100
train.output_dir = "./output/conditional_detr_r50_official"
