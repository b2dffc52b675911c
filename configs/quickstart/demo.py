"""The detector of `make demo`: the small aligned DINO on blood cells, for a few minutes on the CPU.

Photos of half their size, a backbone whose first stages do not train, more queries (up to 30 cells a photo, in three
copies) and anchors of the cells' sizes; flips in both directions, as a microscope has no top, take the place of crops.

Needs what `bccd_dino.py` needs: the folder `datasets/` of a checkout, nothing downloaded.
"""

import detectron2.data.transforms as T
from detectron2.config import LazyCall as L

from .bccd_align_dino import dataloader, lr_multiplier, model, optimizer, train

model.backbone.freeze_at = 2
model.proposals.update(num_queries=100, anchor_sides=[0.07, 0.16, 0.30])  # platelets, red cells, white cells
model.queries.main.num_queries = 100

dataloader.train.num_workers = 1
_train, _test = dataloader.train.mapper, dataloader.test.mapper
_train.augmentations_with_crop = None
_train.augmentations.insert(1, L(T.RandomFlip)(horizontal=False, vertical=True))
_train.augmentations[2].update(short_edge_length=[208, 224, 240, 256, 272], max_size=384)
_test.augmentations[0].update(short_edge_length=[240, 240])

optimizer.lr = 8e-4
optimizer.params.lr_factors = dict(backbone=0.2)
train.max_iter = 1200
train.eval_period = 600
train.checkpointer.period = 600
train.log_period = 50
train.ema.decay = 0.998
train.device = "cpu"
train.output_dir = "./output/demo"
