"""What several tests of the parts need."""

import pytest
import torch

from align_detr.modeling import GIoUCost, HungarianMatcher, L1Cost, SoftmaxCost


@pytest.fixture
def matcher() -> HungarianMatcher:
    """DETR's matcher."""
    torch.manual_seed(0)
    return HungarianMatcher(costs=[SoftmaxCost(weight=1.0), L1Cost(weight=5.0), GIoUCost(weight=2.0)])
