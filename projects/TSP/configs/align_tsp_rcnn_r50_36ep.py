"""Align-TSP-RCNN-R50: Align-DETR's IA-BCE and prime-sample weights on TSP's set loss. Not published.

Each object trains up to three of its foreground proposals; the one of highest quality has the highest weight.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import FocalCost, IABCELoss, PrimeSampleWeighting
from align_detr.projects.tsp import SigmoidClassifier

from .tsp_rcnn_r50_36ep import dataloader, lr_multiplier, model, optimizer, train

_heads = model.roi_heads
_heads.stages[0].classifier = L(SigmoidClassifier)(num_classes="${....num_classes}", embed_dim=512)
_heads.criterion.matcher.costs[0] = L(FocalCost)(weight=2.0)
_heads.criterion.matcher.copies = dict(main=3)
_heads.criterion.losses = [L(IABCELoss)(name="obj", weight=1.0)]
_heads.criterion.weighting = L(PrimeSampleWeighting)()
train.output_dir = "./output/align_tsp_rcnn_r50_36ep"
