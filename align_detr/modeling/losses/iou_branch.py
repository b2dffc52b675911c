"""The IoU branch beside the class scores: its loss, and its use in evaluation."""

import dataclasses
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.structures import Instances
from torch import Tensor, nn

from align_detr.checks import ReadsLogits, check_logits, check_share
from align_detr.errors import ConfigError
from align_detr.modeling.losses.base import SetLoss, sum_by_row, weighted
from align_detr.modeling.losses.quality import matched_iou
from align_detr.structures import MAIN, Match, Predictions, Targets


class IoUBranchLoss(SetLoss):
    """Binary cross-entropy of the predicted IoU of matched queries with their IoU, which is held constant, divided by
    the number of targets (IoU-Net, Jiang et al. 2018, as in Align-DETR's table 4).

    A set whose head has no IoU branch has no such loss.
    """

    def __init__(self, *, name: str = "iou", weight: float = 1.0) -> None:
        super().__init__(name=name, weight=weight)

    def elementwise(self, logits: Tensor, iou: Tensor, weight: Tensor | None = None) -> Tensor:
        """Return the loss of plain tensors: the branch's logits (...), the IoU that they predict and weight (...) ->
        (...) float32.
        """
        entropy = F.binary_cross_entropy_with_logits(logits.float(), iou.float().detach(), reduction="none")
        return weighted(entropy, weight)

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return the loss of each row, (R,), or (0,) without a branch."""
        if preds.iou is None:
            return preds.logits.new_zeros(0, dtype=torch.float32)
        entropy = self.elementwise(match.at(preds.iou), matched_iou(preds, targets, match))
        return sum_by_row(entropy, match, preds.logits.shape[0]) / num_boxes


class FusedPostprocess(ReadsLogits):
    """Postprocessing by `postprocess` of the scores s^(1 - weight) v^weight of class probability s and predicted IoU v,
    as sigmoid logits (Align-DETR, table 4: weight 0.3 was best; 0 leaves the branch unused).

    That the factor is an exponent of a geometric mean is our reading: the paper says "the weight factor of the IoU
    score".
    """

    softmax = False

    def __init__(self, *, postprocess: nn.Module, weight: float = 0.3) -> None:
        super().__init__()
        self.postprocess = postprocess
        self.weight = check_share(weight, "model.postprocess.weight")

    def forward(self, predictions: Predictions, image_sizes: Sequence[tuple[int, int]]) -> list[Instances]:
        """Return what `postprocess` does. Raise ConfigError for a head without an IoU branch or with softmax logits."""
        return self.postprocess(self.fused(predictions), image_sizes)

    def fused(self, predictions: Predictions) -> Predictions:
        """Return the set with the logits of the fused scores; raise ConfigError as `forward`."""
        check_logits(self, MAIN, predictions)
        if predictions.iou is None:
            raise ConfigError(
                "FusedPostprocess needs the predicted IoU, but model.head has no IoU branch: use a head with one, such "
                "as LayerwiseIoUHead, or the inner postprocess alone."
            )
        s, v = predictions.logits.float(), predictions.iou.float()[..., None]
        log_score = (1 - self.weight) * F.logsigmoid(s) + self.weight * F.logsigmoid(v)
        # ln(1 - score); each form is exact on its side of one half
        log_rest = torch.where(log_score > -0.6931, (-torch.expm1(log_score)).log(), torch.log1p(-log_score.exp()))
        return dataclasses.replace(predictions, logits=log_score - log_rest)
