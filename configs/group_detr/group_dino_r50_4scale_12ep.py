"""Group-DETR on DINO-R50, 4 scales, 12 epochs: 3 groups of 900 queries in training, one in evaluation.

Published: 49.8 AP (with 2700 queries, table 3 of Align-DETR).

The paper leaves open whether the groups share DINO's 900 proposals; here they do: see `GroupMixedSelectionQueries`.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import GroupDINO, GroupMixedSelectionQueries

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model._target_ = GroupDINO
model.queries.main = L(GroupMixedSelectionQueries)(num_queries=900, embed_dim=256, groups=3)
train.output_dir = "./output/group_dino_r50_4scale_12ep"
