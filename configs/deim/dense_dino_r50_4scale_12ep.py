"""DINO-R50, 4 scales, on mosaics and sums of images from epoch 1 to 6 of 12, flat-cosine schedule. Not published."""

from ..common.dense_data import mix_images
from ..common.schedule import dense_12ep as lr_multiplier
from ..dino.dino_r50_4scale_12ep import dataloader, model, optimizer, train

mix_images(dataloader, start=1 / 12, stop=0.5)
train.output_dir = "./output/dense_dino_r50_4scale_12ep"
