"""DN-Deformable-DETR with a ResNet-50 (Li et al. 2022): DAB-Deformable-DETR and DN-DETR's denoising queries.

The learned contents are added to the row "unknown" of the labels, and their last channel is the indicator.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import DenoisingQueries, DNDeformableDETR

from .dab_deformable_detr_r50 import model

model._target_ = DNDeformableDETR
model.queries = L(DenoisingQueries)(
    main=model.queries,
    num_classes="${..head.num_classes}",
    embed_dim=256,
    groups=5,
    label_noise=0.2,
    box_noise=0.4,
    indicator=True,
    max_queries=500,  # per image; beyond 100 objects there are fewer groups
)
