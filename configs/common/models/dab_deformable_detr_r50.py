"""DAB-Deformable-DETR with a ResNet-50 (Liu et al. 2022): 300 anchor boxes with learned contents, FFN 2048, no dropout.

The settings are detrex's: class weight 1, only the stem frozen, 300 detections.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import (
    ContentAnchorQueries,
    DABDeformableDETR,
    LayerwiseHead,
    ScaledReferencePosition,
    class_loss_of,
)

from .deformable_detr_r50 import model

model._target_ = DABDeformableDETR
model.backbone.freeze_at = 1
model.encoder.layer.update(ffn_dim=2048, dropout=0.0)
model.queries = L(ContentAnchorQueries)(num_queries=300, embed_dim=256)
model.decoder.update(query_position=L(ScaledReferencePosition)(embed_dim=256, temperature=10000), refine=True)
model.decoder.layer.update(ffn_dim=2048, dropout=0.0)
model.head = L(LayerwiseHead)(num_layers=6, num_classes=80, embed_dim=256, eps=1e-3)
model.criterion.matcher.costs[2].eps = 1e-6
class_loss_of(model.criterion).weight = 1.0
model.criterion.losses[2].eps = 1e-6
model.postprocess.num_detections = 300
