"""What every loss on a matched set has in common."""

from torch import Tensor, nn

from align_detr.structures import Match, Predictions, Targets


class SetLoss(nn.Module):
    """(preds, targets, match, num_boxes) -> (r,): one value for each of the last r <= R rows, before `weight`.

    `name` is the middle of the reported names (`loss_<name>`, `loss_<name>_3`, `loss_<name>_enc`); `num_boxes` is a 0-d
    tensor.
    """

    def __init__(self, *, name: str, weight: float) -> None:
        super().__init__()
        self.name = name
        self.weight = weight

    def forward(self, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor) -> Tensor:
        raise NotImplementedError


def sum_by_row(values: Tensor, match: Match, num_rows: int) -> Tensor:
    """Sums one value a match, times the match's weight, over each row: (M,) -> (R,). No match gives 0 with a gradient
    of zero.
    """
    if match.weight is not None:
        values = values * match.weight
    return values.new_zeros(num_rows).index_add(0, match.row, values)
