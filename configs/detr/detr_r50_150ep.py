"""DETR-R50 for 150 epochs, drop at 100. Published: 39.5 AP."""

from ..common.schedule import step_150ep as lr_multiplier
from .detr_r50_500ep import dataloader, model, optimizer, train

train.epochs = 150
train.output_dir = "./output/detr_r50_150ep"
