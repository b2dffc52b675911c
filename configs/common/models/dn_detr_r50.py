"""DN-DETR with a ResNet-50 (Li et al. 2022): DAB-DETR and five groups of denoising queries, labels 0.2, boxes 0.4."""

from detectron2.config import LazyCall as L

from align_detr.modeling import DNDETR, DenoisingQueries

from .dab_detr_r50 import model

model._target_ = DNDETR
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
