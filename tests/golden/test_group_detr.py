"""Group-DETR against the recorded network: one set of queries in evaluation, separate sets in training."""

import pytest
import torch
from torch.testing import assert_close

from align_detr.checkpoint.detrex import convert_detrex_conditional_detr
from align_detr.modeling.queries import GroupQueries
from align_detr.structures import Predictions
from support.golden import Fixture, fixtures, pad_targets
from support.single_scale import Network, assert_predictions, conditional_network


def build(fixture: Fixture, mask_padding: bool) -> Network:
    config = fixture.meta["config"]
    queries = GroupQueries(
        num_queries=config["num_queries"], embed_dim=config["embed_dim"], groups=config["group_nums"]
    )
    return conditional_network(fixture, queries, convert_detrex_conditional_detr, mask_padding=mask_padding)


def train(fixture: Fixture, mask_padding: bool) -> Predictions:
    """Return the predictions of training, which ignore the targets."""
    targets = pad_targets(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 4), [0] * len(fixture.input["feat_res5"]))
    return build(fixture, mask_padding)(fixture, targets=targets)["main"]


@pytest.mark.parametrize(("mask_padding", "prefix"), [(True, "crossmask_"), (False, "")])
@fixtures("group_detr*")
def test_evaluation(fixture: Fixture, mask_padding: bool, prefix: str) -> None:
    preds = build(fixture, mask_padding)(fixture)["main"]
    assert preds.groups == 1
    assert_predictions(preds, fixture, prefix)


@fixtures("group_detr*")
def test_training(fixture: Fixture) -> None:
    """Row layer x groups + group holds that group's run of queries in the recorded layer."""
    preds, groups = train(fixture, mask_padding=False), fixture.meta["config"]["group_nums"]
    assert preds.groups == groups
    for field, tolerance in (("logits", 3e-4), ("boxes", 3e-5)):
        expected = fixture.output[f"train_corrected_pred_{field}"].unflatten(2, (groups, -1)).transpose(1, 2)
        assert_close(getattr(preds, field), expected.flatten(0, 1), atol=tolerance, rtol=0)


@fixtures("group_detr*")
def test_first_group_is_evaluation(fixture: Fixture) -> None:
    preds = train(fixture, mask_padding=True)
    assert_close(preds.logits[:: preds.groups], fixture.output["crossmask_pred_logits"], atol=3e-4, rtol=0)
    assert_close(preds.boxes[:: preds.groups], fixture.output["crossmask_pred_boxes"], atol=3e-5, rtol=0)
