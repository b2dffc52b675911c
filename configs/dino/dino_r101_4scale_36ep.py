"""DINO-R101, 4 scales: 36 epochs, drop at 30."""

from ..common.schedule import step_36ep as lr_multiplier
from .dino_r101_4scale_12ep import dataloader, model, optimizer, train

train.epochs = 36
train.output_dir = "./output/dino_r101_4scale_36ep"
