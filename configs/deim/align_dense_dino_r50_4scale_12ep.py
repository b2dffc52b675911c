"""Align-DINO-R50, 4 scales, on mosaics and sums of images in epochs 1 to 6 of 12, flat-cosine. Not published."""

from ..align_detr.align_dino_r50_4scale_12ep import dataloader, model, optimizer, train
from ..common.dense_data import mix_images
from ..common.schedule import dense_12ep as lr_multiplier

mix_images(dataloader, start=1 / 12, stop=0.5)
train.output_dir = "./output/align_dense_dino_r50_4scale_12ep"
