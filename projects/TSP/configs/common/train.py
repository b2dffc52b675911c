"""Training options of TSP: the usual ones, except that the optimizer clips, and only the encoder's gradient."""

from .....configs.common.train import train

train.clip_grad.max_norm = 0.0
train.epochs = 36.5  # 270,000 iterations of 16 images, which the papers call 36 epochs
