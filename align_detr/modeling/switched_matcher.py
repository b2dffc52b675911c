"""A matcher whose costs change in the course of training."""

from collections.abc import Mapping, Sequence
from typing import cast

from torch import nn

from align_detr.checks import check_logits, check_share
from align_detr.errors import ConfigError
from align_detr.modeling.matcher import KEY, HungarianMatcher
from align_detr.modeling.matching.costs import Cost
from align_detr.structures import Match, Predictions, Targets


class SwitchedMatcher(HungarianMatcher):
    """Matcher that adds up `costs` at first and, once the share `switch` of training is over, `late_costs` instead
    (Rank-DETR, Pu et al. 2023, from iteration 67,500 of 90,000; DEIMv2, from an epoch that each of its configs names).

    Both hold for all sets. The trainer calls `follow` before each iteration; without one, `costs` remain. What is in
    use follows from the iteration alone, so there is nothing to save, and a resumed run goes on with the right costs.
    """

    def __init__(
        self,
        *,
        costs: Sequence[Cost],
        late_costs: Sequence[Cost],
        switch: float = 0.75,
        copies: Mapping[str, int | Sequence[int]] | None = None,
        on_nonfinite: str = "raise",
        solver: str = "auto",
    ) -> None:
        super().__init__(costs=costs, copies=copies, on_nonfinite=on_nonfinite, solver=solver)
        if not late_costs:
            raise ConfigError(f"{KEY}.late_costs is empty: give the matcher at least one cost.")
        self.early_costs = self.costs
        self.late_costs = cast("Sequence[Cost]", nn.ModuleList(late_costs))  # for torch, a list of any modules
        self.switch = check_share(switch, f"{KEY}.switch")
        self.progress = 0.0

    def follow(self, progress: float) -> None:
        """Choose the costs of an iteration before which the share `progress` of training is over."""
        self.progress = progress
        self.costs = self.late_costs if progress >= self.switch else self.early_costs

    def forward(self, sets: Mapping[str, Predictions], targets: Targets) -> dict[str, Match]:
        """Return a match for every set; sets that know theirs keep it. Raise ConfigError for costs that do not fit the
        logits: for those of later, too.
        """
        for name, preds in sets.items():
            for cost in self.late_costs if preds.match is None else ():
                check_logits(cost, name, preds)
        return super().forward(sets, targets)
