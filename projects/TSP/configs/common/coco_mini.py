"""Thirty iterations on a pretrained MobileNetV2 and 96 photos of COCO: data, schedule and run of both checks."""

from align_detr.data import data_path

from .....configs.common.data.coco_mini import dataloader
from .schedule import warm_multi_step
from .train import train

dataloader.train.total_batch_size = 4
lr_multiplier = warm_multi_step(30, [20, 27], warmup=5)
train.max_iter = 30
train.eval_period = 0
train.log_period = 5
train.init_checkpoint = str(data_path("weights/mobilenet_v2_backbone.npz"))
