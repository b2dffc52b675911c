"""A classification loss in ten lines: cross-entropy towards the IoU, with the squared probability of all others."""

from detectron2.config import LazyCall as L

from align_detr import model_zoo
from align_detr.modeling import BinaryLoss, set_class_loss


class SoftIoULoss(BinaryLoss):
    """-u ln s - (1 - u) ln(1 - s) of matched queries, -s^2 ln(1 - s) of all others."""

    def positive(self, s, u, w):
        """Return the two weights of a matched query: u, and 1 - u, times its prime-sample weight w."""
        return w * u, w * (1 - u)

    def negative(self, s):
        """Return the weight of everything else, s^2."""
        return s**2


model = model_zoo.get_config("quickstart/digits_dab_detr.py").model
set_class_loss(model.criterion, L(SoftIoULoss)(weight=2.0))
