"""DN-Deformable-DETR-R50: 50 epochs, drop at 40, batch 16. Published: 48.6 AP."""

from ..common.models.dn_deformable_detr_r50 import model
from ..dab_deformable_detr.dab_deformable_detr_r50_50ep import dataloader, lr_multiplier, optimizer, train

train.output_dir = "./output/dn_deformable_detr_r50_50ep"
