"""Deformable-DETR-R50 with iterative box refinement. Published: 46.2 AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import LayerwiseHead

from .deformable_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.decoder.refine = True
model.head = L(LayerwiseHead)(num_layers=6, num_classes=80, embed_dim=256, size_logit=-2.0, eps=1e-5)
train.output_dir = "./output/deformable_detr_r50_refine_50ep"
