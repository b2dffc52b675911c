"""DN-Deformable-DETR-R50: 12 epochs, drop at 11. Published: 43.4 AP.

The figure is from table 3 of Align-DETR, among multi-scale detectors, under the name DN-DETR.
"""

from ..common.schedule import step_12ep as lr_multiplier
from .dn_deformable_detr_r50_50ep import dataloader, model, optimizer, train

train.epochs = 12
train.output_dir = "./output/dn_deformable_detr_r50_12ep"
