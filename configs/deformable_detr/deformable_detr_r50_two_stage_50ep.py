"""Two-stage Deformable-DETR-R50, with iterative box refinement. Published: 46.9 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import EncodedProposalQueries, ObjectProposals

from .deformable_detr_r50_refine_50ep import dataloader, lr_multiplier, model, optimizer, train

model.proposals = L(ObjectProposals)(num_queries=300, num_classes="${..head.num_classes}", embed_dim=256)
model.queries = L(EncodedProposalQueries)(embed_dim=256, temperature=10000)
model.head.size_logit = 0.0
# without the layer that maps learned positions to reference points
optimizer.params.lr_factors.pop("reference_points")
train.output_dir = "./output/deformable_detr_r50_two_stage_50ep"
