"""From named prediction sets to named, weighted and normalised losses."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from align_detr.checks import check_logits
from align_detr.errors import ConfigError
from align_detr.layers.reduce import mean_over_ranks
from align_detr.modeling.events import POSITIVES, log_scalar
from align_detr.modeling.losses.base import SetLoss
from align_detr.structures import MAIN, Match, Predictions, SkippedImages, Targets


class SetCriterion(nn.Module):
    """Criterion that matches every set and applies every loss to it, in float32 whatever autocast says.

    The last row of set `main` is reported as `loss_<name>`, row i before it as `loss_<name>_<i>`; other sets add their
    name: `loss_<name>_dn_<i>`, `loss_<name>_enc`. The names depend on the sets and losses alone, never on the data:
    detectron2 reads rank 0's names from every rank. A set without content in a step, such as denoising without any
    target, is passed with Q = 0 queries and `Match.empty`; its losses are then 0.

    `weighting` gives the pairs of every solved set their weights (see `PrimeSampleWeighting`); known matches keep
    theirs. `set_weights[set]` multiplies all losses of a set, 1 by default.
    """

    losses: Sequence[SetLoss]

    def __init__(
        self,
        *,
        matcher: nn.Module,
        losses: Sequence[SetLoss],
        weighting: nn.Module | None = None,
        set_weights: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        self.matcher = matcher
        self.losses = cast("Sequence[SetLoss]", nn.ModuleList(losses))  # for torch, a list of any modules
        self.weighting = weighting
        self.set_weights = dict(set_weights or {})
        names = [loss.name for loss in losses]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(f"criterion.losses has two losses named '{name}': give one of them another name.")

    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Tensor]:
        """Return weighted 0-d losses by name, whose sum is minimised. Raise SkippedImages if the matcher skips images
        and the targets are `restartable`.
        """
        self._check_set_weights(sets)
        for name, preds in sets.items():
            for loss in self.losses:
                check_logits(loss, name, preds)
            if preds.match is None:
                check_logits(self.weighting, name, preds)
        with torch.autocast(targets.boxes.device.type, enabled=False):
            sets = {name: preds.float() for name, preds in sets.items()}
            matches = self.matcher(sets, targets)
            skipped = {image for match in matches.values() for image in match.skipped}
            if targets.restartable and skipped - set(targets.left_out):
                raise SkippedImages(skipped)
            if skipped:
                sets = {name: preds.without_images(sorted(skipped)) for name, preds in sets.items()}
            count = sum(n for image, n in enumerate(targets.counts) if image not in skipped)
            count_per_part = torch.full((), targets.step.mean(count), device=targets.boxes.device)
            num_boxes = mean_over_ranks(count_per_part).clamp(min=1 / targets.step.parts)
            losses: dict[str, Tensor] = {}
            silent = {loss.name for loss in self.losses}
            _log_positives(sets, matches, count)
            for name, preds in sets.items():
                own_targets = preds.own_targets(targets)
                for loss_name, rows in self._set_losses(name, preds, own_targets, matches[name], num_boxes):
                    for twice in losses.keys() & rows.keys():
                        raise ConfigError(f"Two losses are reported as '{twice}': give one of them another name.")
                    losses.update(rows)
                    silent -= {loss_name} if rows else set()
            for loss_name in sorted(silent):
                raise ConfigError(
                    f"No prediction set has what the loss '{loss_name}' needs: remove it from criterion.losses."
                )
            return losses

    def _set_losses(
        self, name: str, preds: Predictions, targets: Targets, match: Match, num_boxes: Tensor
    ) -> Iterator[tuple[str, dict[str, Tensor]]]:
        """Yield the name of each loss, and its weighted values in the set `name` by the names of their rows."""
        if self.weighting is not None and preds.match is None:
            match = self.weighting(preds, targets, match)
        num_layers = preds.logits.shape[0] // preds.groups
        for loss in self.losses:
            rows = loss(preds, targets, match, num_boxes * preds.scale)  # (r,), r <= R
            rows = rows.view(len(rows) // preds.groups, preds.groups).mean(1)  # one per layer
            rows = rows * (loss.weight * self.set_weights.get(name, 1.0))
            yield loss.name, _named_rows(f"loss_{loss.name}", name, rows, num_layers)

    def _check_set_weights(self, sets: Mapping[str, Predictions]) -> None:
        for name in self.set_weights:
            if name not in sets:
                raise ConfigError(
                    f"criterion.set_weights names the set '{name}', but the model predicts {', '.join(sets)}: remove "
                    "it, or name one of them."
                )


def _log_positives(sets: Mapping[str, Predictions], matches: Mapping[str, Match], count: int) -> None:
    """Log how many queries of a layer are matched to an object, on average: of all groups, and of each set."""
    for name, preds in sets.items() if count else ():
        layers = preds.logits.shape[0] // preds.groups
        log_scalar(POSITIVES if name == MAIN else f"{POSITIVES}_{name}", len(matches[name]) / (layers * count))


def _named_rows(loss: str, set_name: str, values: Tensor, num_layers: int) -> dict[str, Tensor]:
    """Return the values of the last layers, (r,), by name."""
    base = loss if set_name == MAIN else f"{loss}_{set_name}"
    first = num_layers - values.shape[0]
    return {
        base if i == num_layers - 1 else f"{base}_{i}": value for i, value in enumerate(values.unbind(), start=first)
    }
