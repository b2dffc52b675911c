"""Two-stage Deformable-DETR-R101, with iterative box refinement (Zhu et al. 2021, table 3, on test-dev)."""

from .deformable_detr_r50_two_stage_50ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.depth = 101
train.output_dir = "./output/deformable_detr_r101_two_stage_50ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-101.pkl"
