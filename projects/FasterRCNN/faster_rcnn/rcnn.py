"""Faster R-CNN, its pooler and its predictor, both of float32."""

import torch
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.fast_rcnn import FastRCNNOutputLayers
from detectron2.structures import Boxes, Instances
from torch import Tensor

from align_detr.modeling.meta_arch import RCNN


@META_ARCH_REGISTRY.register()
class FasterRCNN(RCNN):
    """Faster R-CNN with FPN (Ren et al. 2015, Lin et al. 2017), with detectron2's parts."""


class Float32ROIPooler(ROIPooler):
    """detectron2's pooler over float32 maps.

    With maps in half precision, it would round the boxes to the same type: steps of 4 pixels at 800 in bfloat16.
    """

    def forward(self, x: list[Tensor], box_lists: list[Boxes]) -> Tensor:
        """Pool the boxes of each image from one map (B, C, h, w) per level -> (N, C, r, r) float32."""
        with torch.autocast(x[0].device.type, enabled=False):
            return super().forward([level.float() for level in x], box_lists)


class Float32OutputLayers(FastRCNNOutputLayers):
    """detectron2's classifier and box regressor, with float32 scores: bfloat16 has 8 bits, so that many would tie."""

    def predict_probs(self, predictions: tuple[Tensor, Tensor], proposals: list[Instances]) -> list[Tensor]:
        """Return the probabilities of the regions of each image, (n, K + 1) float32, from logits (N, K + 1)."""
        logits, deltas = predictions
        return super().predict_probs((logits.float(), deltas), proposals)
