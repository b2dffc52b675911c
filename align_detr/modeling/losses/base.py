"""The base of the losses on a matched set, and their sums."""

from torch import Tensor

from align_detr.checks import ReadsLogits, check_number
from align_detr.structures import Match, Predictions, Targets


class SetLoss(ReadsLogits):
    """Loss on a matched set: (preds, targets, match, num_boxes) -> (r,), one value for each of the last r <= R rows,
    before `weight`.

    `name` is the middle of the reported names (`loss_<name>`, `loss_<name>_3`, `loss_<name>_enc`); `num_boxes` is a 0-d
    tensor. `softmax` is the kind of logits that it reads (see `ReadsLogits`).
    """

    def __init__(self, *, name: str, weight: float) -> None:
        super().__init__()
        self.name = name
        self.weight = check_number(weight, f"model.criterion.losses: weight of {type(self).__name__}")

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        """Return one value per row, (r,) float32."""
        raise NotImplementedError


def weighted(values: Tensor, weight: Tensor | None) -> Tensor:
    """Multiply float32 values (...) by their weights (...), if there are any."""
    return values if weight is None else values * weight.float()


def sum_by_row(values: Tensor, match: Match, num_rows: int) -> Tensor:
    """Sum one value per match, times the match's weight, over each row: (M,) -> (R,). A row without matches gives 0
    with a gradient of zero.
    """
    return values.new_zeros(num_rows).index_add(0, match.row, weighted(values, match.weight))
