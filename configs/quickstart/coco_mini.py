"""A small DETR on a pretrained MobileNetV2 and 96 photos of COCO: a check of everything on real data, in a minute on a
CPU.

Needs: the MobileNetV2 of `datasets/` in a checkout, and the photos and annotations of `coco_mini/` in the folder that
the environment variable `ALIGN_DETR_DATA` names; these photos are not published with the project. Without them,
`bccd.py` is the same check. Nothing is downloaded.
"""

from detectron2.config import LazyCall as L

from align_detr.data import data_path
from align_detr.modeling import MobileNetV2

from ..common.data.coco_mini import dataloader
from ..common.models.detr_r50 import model
from ..common.optim import AdamW as optimizer
from ..common.schedule import step_150ep as lr_multiplier
from ..common.train import train

model.backbone = L(MobileNetV2)(out_features=["res5"])
model.neck.in_channels = 320
model.encoder.num_layers = 3
model.decoder.num_layers = 3

dataloader.train.total_batch_size = 4

train.max_iter = 30
train.eval_period = 0
train.log_period = 5
train.output_dir = "./output/quickstart_coco_mini"
train.init_checkpoint = str(data_path("weights/mobilenet_v2_backbone.npz"))
