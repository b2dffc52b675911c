"""From named prediction sets to named, weighted and normalised losses."""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from align_detr.modeling.losses.base import SetLoss
from align_detr.structures import Predictions, Targets


class SetCriterion(nn.Module):
    """Matches every set and applies every loss to it, in float32 whatever autocast says.

    The last row of set `main` is reported as `loss_<name>`, row i before it as `loss_<name>_<i>`; other sets add their
    name: `loss_<name>_dn_<i>`, `loss_<name>_enc`. The names depend on the sets and losses alone, never on the data:
    detectron2 reads rank 0's names from every rank. `set_weights[set]` multiplies all losses of a set (1 where it is
    not named).
    """

    def __init__(
        self, *, matcher: nn.Module, losses: Sequence[SetLoss], set_weights: Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.losses = nn.ModuleList(losses)
        self.set_weights = dict(set_weights or {})

    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Tensor]:
        """Weighted 0-d losses by name; their sum is what is minimised."""
        with torch.autocast(targets.boxes.device.type, enabled=False):
            sets = {name: preds.float() for name, preds in sets.items()}
            matches = self.matcher(sets, targets)
            num_boxes = mean_over_ranks(sum(targets.counts), targets.boxes.device)
            losses = {}
            for name, preds in sets.items():
                for loss in self.losses:
                    rows = loss(preds, targets, matches[name], num_boxes * preds.scale)
                    rows = rows.unflatten(0, (-1, preds.groups)).mean(1) * loss.weight * self.set_weights.get(name, 1.0)
                    losses.update(_named_rows(f"loss_{loss.name}", name, rows, preds.logits.shape[0] // preds.groups))
            return losses


def mean_over_ranks(count: int, device: torch.device) -> Tensor:
    """The mean over all processes of `count`, at least 1: a 0-d float32 tensor, made without waiting for the device."""
    total = torch.full((), float(count), device=device)
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)
        total = total / dist.get_world_size()
    return total.clamp(min=1)


def _named_rows(loss: str, set_name: str, values: Tensor, num_layers: int) -> dict[str, Tensor]:
    base = loss if set_name == "main" else f"{loss}_{set_name}"
    first = num_layers - values.shape[0]
    return {
        base if i == num_layers - 1 else f"{base}_{i}": value for i, value in enumerate(values.unbind(), start=first)
    }
