"""Two-stage DAB-Deformable-DETR-R50: the encoder's best tokens are the query contents, their boxes the anchors."""

from detectron2.config import LazyCall as L

from align_detr.modeling import ClassProposals, ProposalQueries

from .dab_deformable_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.proposals = L(ClassProposals)(num_queries=300, num_classes="${..head.num_classes}", embed_dim=256)
model.queries = L(ProposalQueries)()
train.output_dir = "./output/dab_deformable_detr_r50_two_stage_50ep"
