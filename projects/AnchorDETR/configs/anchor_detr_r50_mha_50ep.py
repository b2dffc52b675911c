"""Anchor-DETR-R50 with ordinary attention: every query is compared with every token. No published AP."""

from detectron2.config import LazyCall as L

from align_detr.modeling import DecoderLayer, EncoderLayer
from align_detr.projects.anchor_detr import PointEncoding

from .anchor_detr_r50_50ep import dataloader, lr_multiplier, model, optimizer, train

model.neck.position = L(PointEncoding)(embed_dim=256, temperature=10000)
model.encoder.layer._target_ = EncoderLayer
model.decoder.layer._target_ = DecoderLayer
model.decoder.query_position = None
train.output_dir = "./output/anchor_detr_r50_mha_50ep"
