"""DETR-DC5-R50 for 150 epochs, drop at 100."""

from ..common.schedule import step_150ep as lr_multiplier
from .detr_r50_dc5_500ep import dataloader, model, optimizer, train

train.epochs = 150
train.output_dir = "./output/detr_r50_dc5_150ep"
