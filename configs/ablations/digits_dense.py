"""The ablations' Align-DINO on mosaics and sums of images up to the middle of training: the demo, shorter."""

from ..quickstart.digits_dense import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = 1200
train.eval_period = 0
train.output_dir = "./output/ablations/digits_dense"
