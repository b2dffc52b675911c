"""The small DAB-DETR on the built-in digits, aligned.

Needs: nothing. The pictures are drawn from scikit-learn's digits and photos at the first use, without network, and kept
in the cache folder (`ALIGN_DETR_CACHE`, default `~/.cache/align_detr`).
"""

from ..common.align import align
from .digits_dab_detr import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/digits_align_dab_detr"
