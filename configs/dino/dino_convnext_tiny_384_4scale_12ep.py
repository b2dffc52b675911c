"""DINO with ConvNeXt-T, pretrained on ImageNet-22k, then 1k, at 384 pixels, 4 scales: 12 epochs. detrex: 52.4 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import ConvNeXt

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone = L(ConvNeXt)(out_features=["res3", "res4", "res5"])
model.neck.in_channels = dict(res3=192, res4=384, res5=768)
train.output_dir = "./output/dino_convnext_tiny_384_4scale_12ep"
train.init_checkpoint = "https://dl.fbaipublicfiles.com/convnext/convnext_tiny_22k_1k_384.pth"
