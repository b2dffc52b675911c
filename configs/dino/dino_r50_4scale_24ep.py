"""DINO-R50, 4 scales: 24 epochs, drop at 20. Published: 50.4 AP. detrex: 50.6."""

from ..common.schedule import step_24ep as lr_multiplier
from .dino_r50_4scale_12ep import dataloader, model, optimizer, train

train.epochs = 24
train.output_dir = "./output/dino_r50_4scale_24ep"
