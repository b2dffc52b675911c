"""TSP-RCNN-R101. Published: 44.8 AP."""

from .tsp_rcnn_r50_36ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
train.output_dir = "./output/tsp_rcnn_r101_36ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
