"""The default of `align-detr train --data DIR`: the small aligned DINO of `bccd_align_dino.py`, for any small data set.

It starts from a pretrained backbone, trains on a CPU and learns faster than the same DINO unaligned
(benchmarks/RESULTS.md). The command sets data, classes, epochs (at least 12, and enough for 1,000 iterations) and the
folder of the results; without it, this trains on blood cells.

Needs: your data, and the pretrained MobileNetV2 of `datasets/weights/` in a checkout (with an installed package, the
environment variable `ALIGN_DETR_DATA` names the folder `datasets`). Nothing is downloaded.
"""

from .bccd_align_dino import dataloader, lr_multiplier, model, optimizer, train

train.max_iter = None
train.epochs = 12
train.eval_period = None
train.output_dir = "./output/your_data"
