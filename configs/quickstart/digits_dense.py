"""The Align-DINO of digits on mosaics and sums of images up to the middle of training, with a flat-cosine schedule: the
detector of `make demo DATA=digits`.

Needs: nothing, as its parent: the pictures are drawn at the first use, without network. It takes the time of the
parent's 3,200 iterations, since mixed images take longer to read.
"""

from ..common.dense_data import mix_images
from ..common.schedule import flat_cosine_with_warmup
from .digits import dataloader, model, optimizer, train

mix_images(dataloader, start=0.05, stop=0.5)
lr_multiplier = flat_cosine_with_warmup(epochs=1, warmup_epochs=0.025, flat_until=0.5, constant_from=0.95, final=0.01)

train.max_iter = 2930
train.eval_period = 1465
train.output_dir = "./output/demo_digits_dense"
