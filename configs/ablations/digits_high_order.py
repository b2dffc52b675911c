"""The demo's losses on the ablations' schedule, matched by the high-order cost in its last quarter."""

from ..common.high_order import switch_to_high_order
from .digits_mixed import dataloader, lr_multiplier, model, optimizer, train

switch_to_high_order(model)
train.output_dir = "./output/ablations/digits_high_order"
