"""Numbers that DETR reports beside its losses, without gradient and without a part in training."""

import torch
from torch import Tensor

from align_detr.structures import Match, Predictions, Targets


@torch.no_grad()
def cardinality_error(preds: Predictions, targets: Targets) -> Tensor:
    """Return, for each row, the mean over images of |queries whose most probable class is not "no object" - targets|:
    (R,) (DETR's official code).
    """
    predicted = (preds.logits.argmax(-1) != preds.logits.shape[-1] - 1).sum(-1).float()
    counts = torch.tensor(targets.counts, dtype=predicted.dtype).to(predicted.device, non_blocking=True)
    return (predicted - counts).abs().mean(-1)


@torch.no_grad()
def class_error(preds: Predictions, targets: Targets, match: Match) -> Tensor:
    """Return the percentage of matched queries of the last row whose most probable class is wrong, 0-d; 100 if nothing
    is matched (DETR's official code).
    """
    last = match.row == preds.logits.shape[0] - 1
    correct = (match.at(preds.logits).argmax(-1) == match.of(targets.labels)) & last
    return 100 - 100 * correct.sum() / last.sum().clamp(min=1)
