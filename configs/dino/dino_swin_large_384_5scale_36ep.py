"""DINO with Swin-L, 5 scales: 36 epochs, drop at 30. detrex: 58.5 AP."""

from ..common.schedule import step_36ep as lr_multiplier
from .dino_swin_large_384_5scale_12ep import dataloader, model, optimizer, train

train.epochs = 36
train.output_dir = "./output/dino_swin_large_384_5scale_36ep"
