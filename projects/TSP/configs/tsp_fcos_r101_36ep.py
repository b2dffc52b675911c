"""TSP-FCOS-R101 for 36 epochs. Published: 44.4 AP."""

from .tsp_fcos_r50_36ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
train.output_dir = "./output/tsp_fcos_r101_36ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
