"""H-Deformable-DETR with a ResNet-50 (Jia et al. 2023): two-stage, mixed selection, boxes that look forward twice.

FFN 2048, no dropout, and in training 1500 more queries, matched to 6 copies of each object, with weight 1. The settings
are those of the authors' repository; detrex's port differs as in Deformable-DETR, except for the class weight, which is
2 in both.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import (
    EncodedMixedSelectionQueries,
    HDeformableDETR,
    HybridQueries,
    LayerwiseHead,
    ObjectProposals,
)

from .deformable_detr_r50 import model

model._target_ = HDeformableDETR
model.encoder.layer.update(ffn_dim=2048, dropout=0.0)
model.proposals = L(ObjectProposals)(num_queries=1800, num_classes="${..head.num_classes}", embed_dim=256)
model.queries = L(HybridQueries)(
    source=L(EncodedMixedSelectionQueries)(num_queries="${...proposals.num_queries}", embed_dim=256),
    num_one_to_one=300,
    copies=6,
)
model.decoder.update(refine=True, look_forward_twice=True)
model.decoder.layer.update(ffn_dim=2048, dropout=0.0)
model.head = L(LayerwiseHead)(num_layers=6, num_classes=80, embed_dim=256, eps=1e-5)
model.criterion.set_weights = dict(o2m=1.0)
