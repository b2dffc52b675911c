"""Conditional-DETR against the recorded network, with and without the padding mask in cross-attention."""

import pytest

from align_detr.checkpoint.detrex import convert_detrex_conditional_detr
from align_detr.modeling.queries import ConditionalQueries
from support.golden import Fixture, fixtures
from support.single_scale import Network, assert_predictions, assert_recognised, assert_states, conditional_network


def build(fixture: Fixture, mask_padding: bool) -> Network:
    config = fixture.meta["config"]
    queries = ConditionalQueries(num_queries=config["num_queries"], embed_dim=config["embed_dim"])
    return conditional_network(fixture, queries, convert_detrex_conditional_detr, mask_padding=mask_padding)


@pytest.mark.parametrize(("mask_padding", "prefix"), [(True, "crossmask_"), (False, "")])
@fixtures("conditional_detr*")
def test_forward(fixture: Fixture, mask_padding: bool, prefix: str) -> None:
    network = build(fixture, mask_padding)
    assert_predictions(network(fixture)["main"], fixture, prefix)


@fixtures("conditional_detr*")
def test_states_and_references(fixture: Fixture) -> None:
    assert_states(build(fixture, mask_padding=False), fixture)


@fixtures("conditional_detr*")
def test_recognised_by_its_keys(fixture: Fixture) -> None:
    assert_recognised(build(fixture, mask_padding=True), fixture)
