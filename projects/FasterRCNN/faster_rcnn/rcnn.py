"""Faster R-CNN, and its pooler in float32."""

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from torch import Tensor

from align_detr.modeling.meta_arch import RCNN


@META_ARCH_REGISTRY.register()
class FasterRCNN(RCNN):
    """Faster R-CNN with FPN (Ren et al. 2015, Lin et al. 2017): all parts are detectron2's."""


class Float32ROIPooler(ROIPooler):
    """detectron2's pooler over maps in float32. With maps in half precision it rounds the boxes to theirs, which at 800
    pixels means steps of 4 in bfloat16.
    """

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """One (B, C, h, w) map a level and the boxes of each image -> (N, C, r, r) float32."""
        with torch.autocast(x[0].device.type, enabled=False):
            return super().forward([level.float() for level in x], box_lists)
