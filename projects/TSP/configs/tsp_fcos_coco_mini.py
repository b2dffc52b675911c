"""TSP-FCOS on a pretrained MobileNetV2 and 96 photos of COCO: a check of everything on real data, in minutes on a CPU.

Two encoder layers of 128 channels.
"""

from detectron2.config import LazyCall as L

from align_detr.data import data_path
from align_detr.modeling import MobileNetV2

from ....configs.common.data.coco_mini import dataloader
from .common.models.tsp_fcos_r50 import model
from .common.optim import hybrid as optimizer
from .common.schedule import warm_multi_step
from .common.train import train

model.backbone.bottom_up = L(MobileNetV2)(out_features=["res3", "res4", "res5"])
model.backbone.out_channels = 128
model.backbone.top_block.update(channels=128, norm="")  # the few cells of p7 give no statistics
model.points.update(channels=128, num_convs=1)
model.points.position.num_features = 64
model.selection.num_queries = 300
model.encoding.update(in_channels=256, embed_dim=128)
model.encoder.layer.update(embed_dim=128, ffn_dim=512)
model.encoder.num_layers = 2
model.encoder.norm.normalized_shape = 128
model.head.embed_dim = 128
model.pixel_std = [58.395, 57.12, 57.375]

dataloader.train.total_batch_size = 4
dataloader.train.mapper.augmentations_with_crop = None

lr_multiplier = warm_multi_step(30, [20, 27], warmup=5)

train.max_iter = 30
train.eval_period = 0
train.log_period = 5
train.output_dir = "./output/tsp_fcos_coco_mini"
train.init_checkpoint = str(data_path("weights/mobilenet_v2_backbone.npz"))
