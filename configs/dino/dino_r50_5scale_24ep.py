"""DINO-R50, 5 scales: 24 epochs, drop at 20."""

from ..common.schedule import step_24ep as lr_multiplier
from .dino_r50_5scale_12ep import dataloader, model, optimizer, train

train.epochs = 24
train.output_dir = "./output/dino_r50_5scale_24ep"
