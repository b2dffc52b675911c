"""Group-DETR-R50, aligned: k = 3 in each group; class weight 2 as in Group-DETR. Not published."""

from ..common.align import align
from ..group_detr.group_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/align_group_detr_r50_50ep"
