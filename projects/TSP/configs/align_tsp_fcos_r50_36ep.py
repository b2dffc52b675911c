"""Align-TSP-FCOS-R50: IA-BCE on TSP's matched set, three points per object, weighted by rank. Not published."""

from detectron2.config import LazyCall as L

from align_detr.modeling import IABCELoss, PrimeSampleWeighting

from .tsp_fcos_r50_36ep import dataloader, lr_multiplier, model, optimizer, train

model.criterion.matched.losses = [L(IABCELoss)(weight=1.0)]
model.criterion.matched.weighting = L(PrimeSampleWeighting)()
model.criterion.matched.matcher.copies = {"main": 3}
train.output_dir = "./output/align_tsp_fcos_r50_36ep"
