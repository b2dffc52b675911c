"""DAB-DETR-R50 with 3 patterns: 300 anchors x 3 learned contents."""

from detectron2.config import LazyCall as L

from align_detr.modeling import PatternAnchorQueries

from .dab_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.queries = L(PatternAnchorQueries)(num_queries=300, embed_dim=256, num_patterns=3)
train.output_dir = "./output/dab_detr_r50_3patterns_50ep"
