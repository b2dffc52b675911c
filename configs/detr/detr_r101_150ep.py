"""DETR-R101 for 150 epochs, drop at 100."""

from ..common.schedule import step_150ep as lr_multiplier
from .detr_r101_500ep import dataloader, model, optimizer, train

train.epochs = 150
train.output_dir = "./output/detr_r101_150ep"
