"""A small DINO on blood cells under a microscope (3 classes), on a pretrained MobileNetV2.

Needs: the blood cells and the MobileNetV2, both in `datasets/` of a checkout (364 photos, 4.4 MB of weights); with an
installed package, the environment variable `ALIGN_DETR_DATA` names that folder. Nothing is downloaded.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import MobileNetV2

from ..common.data.bccd import dataloader
from ..common.models.dino_small import model
from ..common.schedule import cosine_with_warmup
from .coco_mini import optimizer, train

model.backbone = L(MobileNetV2)(out_features=["res3", "res4", "res5"])
model.neck.in_channels = dict(res3=32, res4=96, res5=320)
model.proposals.anchor_sides = None
model.head.num_classes = 3

dataloader.train.total_batch_size = 4
dataloader.test.dataset = "bccd_test_distinct"

optimizer.lr = 5e-4
lr_multiplier = cosine_with_warmup(epochs=1, warmup_epochs=0.05, final=0.01)

train.max_iter = 600
train.clip_grad.max_norm = 1.0
train.ema.update(enabled=True, decay=0.99)
train.output_dir = "./output/quickstart_bccd_dino"
