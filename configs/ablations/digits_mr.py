"""The ablations' Align-DINO with Mr.DETR's two instructive routes in training."""

from detectron2.config import LazyCall as L

from align_detr.modeling import FeedForwardRoute, InstructionRoute, RoutedDecoder

from .digits_mixed import dataloader, lr_multiplier, model, optimizer, train

model.decoder._target_ = RoutedDecoder
model.decoder.routes = [
    L(FeedForwardRoute)(name="o2m_ffn", num_layers=3, embed_dim=128, ffn_dim=512, scale=3.0),
    L(InstructionRoute)(name="o2m_tokens", embed_dim=128, num_tokens=10, scale=3.0),
]
train.output_dir = "./output/ablations/digits_mr"
