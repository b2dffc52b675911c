"""A small DETR on the built-in digits, trained with the assignments of a trained one (matching distillation).

Needs: `model.teacher`, a file of weights of the parent, such as the weights.pth of a run of quickstart/digits_detr.py.
"""

from align_detr.projects.tsp import DistilledDETR, TeacherMatcher

from ....configs.quickstart.digits_detr import dataloader, lr_multiplier, model, optimizer, train

model._target_ = DistilledDETR
model.teacher = ""
model.criterion.matcher._target_ = TeacherMatcher

train.output_dir = "./output/detr_digits_distilled"
