"""Backbones that detectron2 has no builder for; each is a detectron2 `Backbone`."""

from align_detr.modeling.backbone.efficientnet import EfficientNetLite
from align_detr.modeling.backbone.mobilenet import MobileNetV2
from align_detr.modeling.backbone.resnet import build_resnet, build_small_resnet

__all__ = ["EfficientNetLite", "MobileNetV2", "build_resnet", "build_small_resnet"]
