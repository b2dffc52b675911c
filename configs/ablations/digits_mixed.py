"""The ablations' detector with mixed matching and prime-sample weighting: the demo's losses on a short schedule."""

from ..common.align import align
from .digits_ia_bce import dataloader, lr_multiplier, model, optimizer, train

align(model)
train.output_dir = "./output/ablations/digits_mixed"
