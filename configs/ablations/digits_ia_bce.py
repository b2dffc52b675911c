"""The demo's detector with IA-BCE and one-to-one matching on a short schedule: the base of the ablations on digits."""

from ..quickstart.digits import dataloader, lr_multiplier, model, optimizer, train

model.criterion.matcher.copies = dict(main=[1, 1, 1], enc=1)
model.criterion.weighting = None

train.max_iter = 1200
train.eval_period = 0
train.output_dir = "./output/ablations/digits_ia_bce"
