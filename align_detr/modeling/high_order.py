"""Rank-DETR's high-order matching cost as a change to the config of any detector with sigmoid classes."""

from detectron2.config import LazyCall as L
from omegaconf import DictConfig

from align_detr.modeling.matching.costs import HighOrderCost
from align_detr.modeling.switched_matcher import SwitchedMatcher


def switch_to_high_order(model: DictConfig, *, power: float = 4.0, switch: float = 0.75) -> None:
    """Let the config `model` match by the cost -s u^`power` once the share `switch` of training is over.

    The defaults are Rank-DETR's. Everything else of the matcher stays, copies of objects as well.
    """
    matcher = model.criterion.matcher
    matcher._target_ = SwitchedMatcher
    matcher.late_costs = [L(HighOrderCost)(weight=1.0, power=power)]
    matcher.switch = switch
