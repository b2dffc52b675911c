"""H-Deformable-DETR-R50: 12 epochs, drop at 11, batch 16. Published: 48.7 AP.

The rate is the paper's, 2e-4 and a tenth of it for the sampling offsets; detrex's port trains with 1e-4 throughout.
"""

from ..common.data.coco_detr import dataloader
from ..common.models.h_deformable_detr_r50 import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_12ep as lr_multiplier
from ..common.train import train

dataloader.train.total_batch_size = 16

optimizer.lr = 2e-4
optimizer.params.lr_factors.update(sampling_offsets=0.1)

train.epochs = 12
train.output_dir = "./output/h_deformable_detr_r50_12ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
