"""DINO-R50 that matches by the high-order cost, -s u^4, in the last quarter of training. Not published."""

from ..common.high_order import switch_to_high_order
from ..dino.dino_r50_4scale_12ep import dataloader, lr_multiplier, model, optimizer, train

switch_to_high_order(model)
train.output_dir = "./output/ablations/dino_r50_high_order_12ep"
