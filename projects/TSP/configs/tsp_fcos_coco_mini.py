"""TSP-FCOS on a pretrained MobileNetV2 and 96 photos of COCO: a check of everything on real data, in minutes on a CPU.

Two encoder layers of 128 channels.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import MobileNetV2

from .common.coco_mini import dataloader, lr_multiplier, train
from .common.models.tsp_fcos_r50 import model
from .common.optim import hybrid as optimizer

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

dataloader.train.mapper.augmentations_with_crop = None

train.output_dir = "./output/tsp_fcos_coco_mini"
