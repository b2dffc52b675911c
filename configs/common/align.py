"""Align-DETR (Cai et al. 2023) in five lines, the same for every detector with sigmoid classes."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from align_detr.modeling import IABCELoss, PrimeSampleWeighting


def align(model: DictConfig, *, copies: int = 3, alpha: float = 0.25, gamma: float = 2.0, tau: float = 1.5) -> None:
    """Give `model` the IoU-aware class loss, the prime-sample weighting, and `copies` of each object.

    The copies hold in every decoder layer but the last, and among the encoder's proposals where there are any. The
    defaults are the paper's k, alpha and tau; its released configs have k = 2. The weight of the class loss and the
    copies of other sets (a hybrid branch's) stay as they are.
    """
    criterion = model.criterion
    criterion.losses[0] = L(IABCELoss)(weight=criterion.losses[0].weight, alpha=alpha, gamma=gamma)
    criterion.weighting = L(PrimeSampleWeighting)(alpha=alpha, tau=tau)
    layers = {"main": [copies] * (model.decoder.num_layers - 1) + [1]}
    encoder = {"enc": copies} if model.get("proposals") is not None else {}
    criterion.matcher.copies = {**(criterion.matcher.get("copies") or {}), **layers, **encoder}
