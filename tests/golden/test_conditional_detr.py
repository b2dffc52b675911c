"""Conditional-DETR against the recorded network, with and without the padding mask in cross-attention."""

import pytest
from torch.testing import assert_close

from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detrex import convert_detrex_conditional_detr
from align_detr.modeling.queries import ConditionalQueries
from support.golden import Fixture, fixtures
from support.single_scale import Network, assert_predictions, conditional_network


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
    network = build(fixture, mask_padding=False)
    memory = network.memory(fixture)
    hidden, references = network.decoder.decode(network.queries(memory), memory, network.head)
    assert_close(hidden, fixture.output["hidden_states"], atol=3e-4, rtol=0)
    for reference in references:
        assert_close(reference, fixture.output["references"], atol=3e-5, rtol=0)


@fixtures("conditional_detr*")
def test_recognised_by_its_keys(fixture: Fixture) -> None:
    converted = convert(fixture.weights, num_classes=fixture.meta["config"]["num_classes"])
    assert set(converted) == set(build(fixture, mask_padding=True).state_dict())
