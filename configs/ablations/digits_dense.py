"""The ablations' Align-DINO on mosaics and sums of images up to the middle of training, with a flat-cosine schedule."""

from ..common.dense_data import mix_images
from ..common.schedule import flat_cosine_with_warmup
from .digits_mixed import dataloader, model, optimizer, train

mix_images(dataloader, start=0.05, stop=0.5)
lr_multiplier = flat_cosine_with_warmup(epochs=1, warmup_epochs=0.025, flat_until=0.5, constant_from=0.95, final=0.01)
train.output_dir = "./output/ablations/digits_dense"
