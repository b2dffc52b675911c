"""The small DINO on blood cells under a microscope, aligned.

Needs what `bccd_dino.py` needs: the folder `datasets/` of a checkout, nothing downloaded.
"""

from ..common.align import align
from .bccd_dino import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/quickstart_bccd_align_dino"
