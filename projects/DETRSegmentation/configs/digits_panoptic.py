"""Panoptic segmentation of the built-in digits by a small Align-DINO, on the CPU: boxes, masks and classes of digits
(things) and photos (stuff) together.

It starts from the detector of digits that comes with the package, as DETR starts from trained boxes; its two kinds of
stuff and the masks are new. Needs: nothing. The pictures are drawn from scikit-learn's digits and photos at the first
use, without network, and kept in the cache folder (`ALIGN_DETR_CACHE`, default `~/.cache/align_detr`).
"""

from detectron2.config import LazyCall as L

from align_detr.projects.detr_segmentation import GaussianBoxAttention, PanopticMerge, SegmentationDeformableDETR

from ....configs.quickstart.digits import lr_multiplier, model, optimizer, train
from .common.digits_panoptic import dataloader
from .common.masks import add_masks

model["_target_"] = SegmentationDeformableDETR
model.head.num_classes = 12
add_masks(model, in_channels=dict(res3=64, res2=32), level=1, embed_dim=128, num_heads=4, focal=2.0, dice=2.0)
model.masks.attention["_target_"] = GaussianBoxAttention
model.panoptic = L(PanopticMerge)(num_things=10, score_threshold=0.4)

dataloader.train.total_batch_size = 4

# The backbone stays as it is; the new parts and classes learn faster than what is trained.
optimizer.lr = 2e-4
optimizer.params.lr_factors = {"masks": 5.0, "class_embed": 5.0}

train.init_checkpoint = "digits"
train.freeze = ["backbone"]
train.max_iter = 2500
train.eval_period = 0
train.pictures = 0
train.output_dir = "./output/digits_panoptic"
