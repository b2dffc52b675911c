"""DINO-R50, 4 scales, with Mr.DETR's two instructive routes in training, matched one-to-many: 12 epochs.

Published: 50.9 AP (Zhang et al. 2025). Whether its routes have DINO's focal loss, as here, or IA-BCE with rank weights,
as those of Mr.DETR-Align, is not verified.
"""

from detectron2.config import LazyCall as L

from align_detr.modeling import FeedForwardRoute, InstructionRoute, RoutedDecoder

from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

model.decoder._target_ = RoutedDecoder
model.decoder.routes = [
    L(FeedForwardRoute)(name="o2m_ffn", num_layers=6, embed_dim=256, ffn_dim=2048, scale=3.0),
    L(InstructionRoute)(name="o2m_tokens", embed_dim=256, num_tokens=10, scale=3.0),
]
train.output_dir = "./output/mr_dino_r50_4scale_12ep"
