"""DN-DETR against the recorded network: evaluation, and a whole training step with its recorded noise."""

from torch.testing import assert_close

from align_detr.checkpoint.detrex import convert_detrex_dn_detr
from align_detr.modeling.criterion import SetCriterion
from align_detr.modeling.losses import GIoULoss, L1Loss, SigmoidFocalLoss
from align_detr.modeling.matcher import FocalCost, GIoUCost, HungarianMatcher, L1Cost
from align_detr.modeling.queries import AnchorQueries, DenoisingQueries
from support.draws import recorded_draws, replay
from support.golden import Fixture, fixtures, load
from support.paths import GOLDEN
from support.single_scale import (
    Network,
    assert_gradients,
    assert_predictions,
    assert_recognised,
    assert_states,
    dab_network,
)


def build(fixture: Fixture, *, mask_padding: bool, **noise: float) -> Network:
    config = fixture.meta["config"]
    dim = config["embed_dim"]
    queries = DenoisingQueries(
        main=AnchorQueries(num_queries=config["num_queries"], embed_dim=dim),
        num_classes=config["num_classes"],
        embed_dim=dim,
        indicator=config["with_indicator"],
        **noise,
    )
    return dab_network(fixture, queries, convert_detrex_dn_detr, mask_padding=mask_padding)


@fixtures("dn_detr*", having=["weights/"])
def test_evaluation(fixture: Fixture) -> None:
    """Without denoising queries: with the padding masked and, as in detrex, not."""
    masked, unmasked = (build(fixture, mask_padding=mask_padding) for mask_padding in (True, False))
    assert_predictions(masked(fixture)["main"], fixture, "crossmask_")
    assert_predictions(unmasked(fixture)["main"], fixture, "")
    assert_states(unmasked, fixture)
    assert_recognised(masked, fixture)


@fixtures("dn_detr*", lacking=["weights/"])
def test_training_step(fixture: Fixture) -> None:
    """Predictions of both sets, weighted losses, their total and its gradients equal the recorded ones."""
    recorded, config = load(GOLDEN / fixture.meta["weights_from"]), fixture.meta["config"]
    network = build(
        recorded,
        mask_padding=False,
        groups=config["denoising_groups"],
        label_noise=config["label_noise_prob"],
        box_noise=config["box_noise_scale"],
    )
    replay(network.queries, recorded_draws(fixture, config["label_noise_prob"]))
    features, targets = recorded.input["feat_res5"].clone().requires_grad_(), fixture.targets()
    sets = network(recorded, features, targets)
    assert_predictions(sets["main"], fixture)
    assert_predictions(sets["dn"], fixture, "dn_")

    weights = fixture.meta["weight_dict"]
    criterion = SetCriterion(
        matcher=HungarianMatcher(costs=[FocalCost(weight=2.0), L1Cost(weight=5.0), GIoUCost(weight=2.0, eps=1e-6)]),
        losses=[
            SigmoidFocalLoss(weight=weights["loss_class"]),
            L1Loss(weight=weights["loss_bbox"]),
            GIoULoss(weight=weights["loss_giou"], eps=1e-6),
        ],
    )
    losses = criterion(sets, targets)
    expected = {
        name: value * weights["_".join(name.split("_")[:2])] for name, value in fixture.loss.items() if name != "total"
    }
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        assert_close(value, expected[name], rtol=2e-5, atol=0, msg=name)
    total = sum(losses.values())
    assert_close(total, fixture.loss["total"], rtol=2e-5, atol=0)
    total.backward()
    assert_gradients(network, features, recorded.weights, fixture, convert_detrex_dn_detr)
