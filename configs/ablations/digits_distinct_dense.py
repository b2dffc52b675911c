"""The ablations' Align-DINO with the two ideas that gain most, distinct queries on mosaics and sums of images."""

from .digits_dense import dataloader, lr_multiplier, optimizer, train
from .digits_distinct import model

train.output_dir = "./output/ablations/digits_distinct_dense"
