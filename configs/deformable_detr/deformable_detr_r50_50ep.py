"""Deformable-DETR-R50, the original recipe: 50 epochs, drop at 40, batch 32. Published: 44.5 AP (paper: 43.8).

detrex's port trains with 1e-4 and batch 16, and without the smaller rate of the sampling offsets and reference points.
"""

from ..common.data.coco_detr import dataloader
from ..common.models.deformable_detr_r50 import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_50ep as lr_multiplier
from ..common.train import train

dataloader.train.total_batch_size = 32

optimizer.lr = 2e-4
optimizer.params.lr_factors.update(reference_points=0.1, sampling_offsets=0.1)

train.epochs = 50
train.output_dir = "./output/deformable_detr_r50_50ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
