"""H-Deformable-DETR-R50 with the IoU-aware class loss alone, as in table 7 of Align-DETR. Published: 49.3 AP.

Only the hybrid branch matches several queries to an object.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import IABCELoss, set_class_loss

from ..h_deformable_detr.h_deformable_detr_r50_12ep import dataloader, lr_multiplier, model, optimizer, train

set_class_loss(model.criterion, L(IABCELoss)(weight=2.0, alpha=0.25, gamma=2.0))
train.output_dir = "./output/align_h_deformable_detr_r50_12ep"
