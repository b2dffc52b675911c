"""H-Deformable-DETR-R50: 36 epochs, drop at 30."""

from ..common.schedule import step_36ep as lr_multiplier
from .h_deformable_detr_r50_12ep import dataloader, model, optimizer, train

train.epochs = 36
train.output_dir = "./output/h_deformable_detr_r50_36ep"
