"""The aligned versions of the projects' detectors."""

import pytest
from detectron2.config import instantiate

from align_detr.modeling import IABCELoss
from support.shrink import config


@pytest.mark.parametrize("name", ["AnchorDETR/align_anchor_detr_r50_50ep.py", "SMCA/align_smca_r50_50ep.py"])
def test_criterion(name: str) -> None:
    """k is 3 in the intermediate layers and 1 in the last; alpha, gamma and tau are the paper's."""
    criterion = config(name).model.criterion
    loss, weighting = instantiate(criterion.losses[0]), instantiate(criterion.weighting)
    assert type(loss) is IABCELoss and (loss.weight, loss.alpha, loss.gamma) == (2.0, 0.25, 2.0)
    assert (weighting.alpha, weighting.tau) == (0.25, 1.5)
    assert criterion.matcher.copies == {"main": [3] * 5 + [1]}
