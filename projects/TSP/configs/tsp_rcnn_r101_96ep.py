"""TSP-RCNN-R101 for 96 epochs with random crops. Published: 46.5 AP."""

from .tsp_rcnn_r50_96ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.bottom_up.depth = 101
train.output_dir = "./output/tsp_rcnn_r101_96ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-101.pkl"
