"""DETR with a ResNet-50 for COCO's 133 panoptic classes, and a mask per query (Carion et al. 2020, section 4.4)."""

from detectron2.config import LazyCall as L

from align_detr.projects.detr_segmentation import PanopticMerge, SegmentationDETR

from .....configs.common.models.detr_r50 import model
from .masks import add_masks

model["_target_"] = SegmentationDETR
model.head.num_classes = 133
add_masks(model, in_channels=dict(res4=1024, res3=512, res2=256))
model.panoptic = L(PanopticMerge)(num_things=80, score_threshold=0.85)
