"""TSP-FCOS-R50, the official recipe: 36 epochs, batch 16. Published: 43.1 AP."""

from .common.data import dataloader
from .common.models.tsp_fcos_r50 import model
from .common.optim import hybrid as optimizer
from .common.schedule import step_36ep as lr_multiplier
from .common.train import train

train.output_dir = "./output/tsp_fcos_r50_36ep"
train.init_checkpoint = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
