"""Group-DETR on Conditional-DETR with a ResNet-50 (Chen et al. 2022): 11 groups of 300 queries in training."""

from detectron2.config import LazyCall as L

from align_detr.modeling import GroupDETR, GroupQueries

from .conditional_detr_r50 import model

model._target_ = GroupDETR
model.queries = L(GroupQueries)(num_queries=300, embed_dim=256, groups=11)
