"""DINO-R50, 4 scales, 12 epochs, with the settings of the original repository, for its weights. Published: 49.0 AP.

Differences from detrex's settings: one head for all layers, positions of temperature 20 without offset, the stem and
the first stage frozen, and box noise 0.4 (according to its authors, the paper's 0.4 is a misprint for 1.0); noise does
not matter in evaluation. Both bound logits with 1e-3.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import SharedHead

from .dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.backbone.freeze_at = 2
model.neck.position.update(temperature=20, offset=0.0)
model.queries.box_noise = 0.4
model.head = L(SharedHead)(num_classes=80, embed_dim=256)
train.output_dir = "./output/dino_r50_4scale_official"
