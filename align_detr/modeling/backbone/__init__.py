"""Backbones that detectron2 has no builder for; each is a detectron2 `Backbone`."""

from align_detr.modeling.backbone.convnext import ConvNeXt
from align_detr.modeling.backbone.efficientnet import EfficientNetLite
from align_detr.modeling.backbone.mobilenet import MobileNetV2
from align_detr.modeling.backbone.resnet import build_resnet, build_small_resnet
from align_detr.modeling.backbone.simple_pyramid import SimplePyramid
from align_detr.modeling.backbone.swin import SwinTransformer
from align_detr.modeling.backbone.timm import TimmBackbone, pixel_statistics

__all__ = [
    "ConvNeXt",
    "EfficientNetLite",
    "MobileNetV2",
    "SimplePyramid",
    "SwinTransformer",
    "TimmBackbone",
    "build_resnet",
    "build_small_resnet",
    "pixel_statistics",
]
