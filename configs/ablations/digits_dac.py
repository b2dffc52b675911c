"""The ablations' Align-DINO with a second pass without self-attention in training (DAC-DETR)."""

from detectron2.config import LazyCall as L

from align_detr.modeling import CrossAttentionRoute, RoutedDecoder

from .digits_mixed import dataloader, lr_multiplier, model, optimizer, train

model.decoder._target_ = RoutedDecoder
model.decoder.routes = [L(CrossAttentionRoute)(name="o2m", parts=["main", "dn"], scale=3.0)]
train.output_dir = "./output/ablations/digits_dac"
