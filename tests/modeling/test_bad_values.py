"""Settings of DINO and its relatives that cannot be used: each has its sentence, which names keys that can be set."""

import inspect
import math
import re

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig
from torch import nn

from align_detr.errors import ConfigError
from align_detr.lazy_config import load_config
from align_detr.modeling import losses
from align_detr.modeling.losses import FusedPostprocess, SigmoidFocalLoss, TOODLoss
from align_detr.modeling.matcher import (
    FocalCost,
    GIoUCost,
    HighOrderCost,
    L1Cost,
    PositionModulatedCost,
    SoftmaxCost,
)
from align_detr.modeling.meta_arch import DeformableDETR
from align_detr.modeling.queries import (
    AnchorQueries,
    DenoisingQueries,
    GroupMixedSelectionQueries,
    MixedSelectionQueries,
)
from align_detr.structures import Predictions, Proposals, Targets
from support.detectors import deformable_detector
from support.inputs import image_input
from support.shrink import small_model

ALPHA = "alpha of IABCELoss is {}, but must lie in [0, 1]"
COUNTS = "num_queries is {}, but num_queries of MixedSelectionQueries (model.queries.main.num_queries) is {}: give both"
LAYERS = "model.head.num_layers is {}, but model.decoder.num_layers is {}: give both the same number"
SIDES = "model.proposals.anchor_sides has {}, but a side must lie between 0.01 and 0.99 of the image"

NO_SET = "matcher.copies is {}, but must name a set: write model.criterion.matcher.copies.main=3, for example."

# An override, and part of what is said: by the constructors, or in the first step.
BUILD = [
    ("decoder.num_layers=2", LAYERS.format(3, 2)),
    ("decoder.num_layers=4", LAYERS.format(3, 4)),
    ("head.num_layers=2", LAYERS.format(2, 3)),
    ("criterion.weighting.tau=0", "model.criterion.weighting.tau is 0, but must be above 0"),
    ("criterion.weighting.tau=-1", "model.criterion.weighting.tau is -1, but must be above 0"),
    ("criterion.weighting.tau=true", "model.criterion.weighting.tau is True, but must be above 0"),
    ("criterion.weighting.tau=null", "model.criterion.weighting.tau is None, but must be above 0"),
    ("criterion.weighting.tau=-inf", "model.criterion.weighting.tau is -inf, but must be above 0"),
    ("criterion.weighting.tau=nan", "model.criterion.weighting.tau is nan, but must be above 0"),
    ("criterion.losses.0.alpha=null", ALPHA.format(None)),
    ("criterion.matcher.copies.main=null", "model.criterion.matcher.copies.main is None, but must be a whole number"),
    (
        "criterion.matcher.copies.main=[3,0]",
        "model.criterion.matcher.copies.main[1] is 0, but must be a whole number",
    ),
    ("criterion.matcher.copies=3", NO_SET.format(3)),
    ("queries.box_noise=abc", "model.queries.box_noise is 'abc', but must be a finite number of at least 0"),
    ("queries.label_noise=null", "model.queries.label_noise is None, but must lie in [0, 2]"),
    ("proposals.anchor_sides=[0.1,0.2,null]", SIDES.format(None)),
    ("proposals.num_queries=-5", "model.proposals.num_queries is -5, but must be a whole number of at least 1"),
    ("decoder.num_layers=2.5", "model.decoder.num_layers is 2.5, but must be a whole number of at least 1"),
    ("decoder.num_layers=0", "model.decoder.num_layers is 0, but must be a whole number of at least 1"),
    ("criterion.weighting.alpha=2", "model.criterion.weighting.alpha is 2, but must lie in [0, 1]"),
    ("criterion.losses.0.alpha=-1", ALPHA.format(-1)),
    (
        "criterion.losses.0.gamma=null",
        "model.criterion.losses: gamma of IABCELoss is None, but must be a finite number",
    ),
    ("criterion.losses.1.weight=null", "model.criterion.losses: weight of L1Loss is None, but must be a finite number"),
    (
        "criterion.matcher.costs.0.weight=null",
        "model.criterion.matcher.costs: weight of FocalCost is None, but must be",
    ),
    ("criterion.losses.0.alpha=5", ALPHA.format(5)),
    ("queries.max_queries=1", "model.queries.max_queries is 1, but must be a whole number of at least 2"),
    ("queries.max_queries=9.5", "model.queries.max_queries is 9.5, but must be a whole number of at least 2"),
    ("queries.dn_number=2.5", "model.queries.dn_number is 2.5, but must be a whole number of at least 1"),
    (
        "queries.label_noise=3",
        "is 3, but must lie in [0, 2]: set it to a number between them (0 changes no label, 2 draws all anew).",
    ),
    ("queries.label_noise=-1", "model.queries.label_noise is -1, but must lie in [0, 2]"),
    ("queries.box_noise=-1", "model.queries.box_noise is -1, but must be a finite number of at least 0"),
    ("queries.num_classes=2", "model.queries.num_classes is 2, but model.head.num_classes is 10"),
    ("proposals.num_classes=2", "model.proposals.num_classes is 2, but model.head.num_classes is 10"),
    ("proposals.anchor_sides=[0.1,0.2,-1]", SIDES.format(-1)),
    ("proposals.anchor_sides=[1.5,0.2,0.3]", SIDES.format(1.5)),
]
STEP = [
    ("proposals.num_queries=30", COUNTS.format(30, 50)),
    ("queries.main.num_queries=30", COUNTS.format(50, 30)),
    (
        "proposals=null",
        "model.proposals is null, but MixedSelectionQueries in model.queries makes queries of proposals",
    ),
    ("proposals.anchor_sides=0.1", "model.proposals.anchor_sides has 1 numbers, but the neck makes 3 levels"),
    ("decoder.query_position=null", "model.decoder.query_position is null"),
]


BORDERS = [
    "queries.max_queries=20",
    "queries.label_noise=2",
    "criterion.losses.0.alpha=1",
    "criterion.weighting.tau=inf",
]


def demo_with(override: str) -> DictConfig:
    """Return the model of the smallest Align-DINO config, with an override of the command line."""
    return load_config("quickstart/digits.py", [f"model.{override}"]).model


@pytest.mark.parametrize(("override", "message"), BUILD, ids=[override for override, _ in BUILD])
def test_a_constructor_names_the_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        instantiate(demo_with(override))


@pytest.mark.parametrize(("override", "message"), STEP, ids=[override for override, _ in STEP])
def test_the_first_step_names_the_keys(override: str, message: str) -> None:
    model = instantiate(demo_with(override)).train()
    with pytest.raises(ConfigError, match=re.escape(message)):
        model([image_input(64, 96, 2, 10)])


@pytest.mark.parametrize("override", BORDERS)
def test_what_lies_at_a_border_trains(override: str) -> None:
    losses = instantiate(demo_with(override)).train()([image_input(64, 96, 2, 10)])
    assert all(torch.isfinite(x) for x in losses.values())


def some_proposals(num_queries: int) -> Proposals:
    empty = Predictions(logits=torch.zeros(1, 2, 0, 3), boxes=torch.zeros(1, 2, 0, 4))
    return Proposals(torch.rand(2, num_queries, 8), torch.rand(2, num_queries, 4), empty)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("count", [3, 5])
def test_groups_need_a_proposal_for_each_content(count: int, training: bool) -> None:
    """It raises: with fewer proposals the rows of a group would be another group's."""
    targets = Targets(torch.zeros(2, 1).long(), torch.rand(2, 1, 4), [1, 1]) if training else None
    source = GroupMixedSelectionQueries(num_queries=4, embed_dim=8, groups=2)
    with pytest.raises(ConfigError, match=rf"num_queries is {count}, but num_queries of Group.* is 4: give both"):
        source(None, some_proposals(count), targets)
    with pytest.raises(ConfigError, match="model.proposals is null, but GroupMixedSelectionQueries"):
        source(None, None, targets)


@pytest.mark.parametrize("groups", [0, -1, 2.0])
def test_number_of_groups(groups: float) -> None:
    with pytest.raises(ConfigError, match=rf"model\.queries\.main\.groups is {groups}, but must be a whole number"):
        GroupMixedSelectionQueries(num_queries=4, embed_dim=8, groups=groups)


@pytest.mark.parametrize("kind", ["two_stage", "dab_two_stage", "hybrid", "dino"])
def test_every_source_of_a_two_stage_detector_needs_proposals(kind: str) -> None:
    model = deformable_detector(kind).eval()
    model.proposals = None
    with pytest.raises(ConfigError, match=r"model\.proposals is null, but \w+ in model\.queries makes queries of"):
        model([image_input(64, 96, 1)])


def test_hybrid_queries_need_a_proposal_for_each_content() -> None:
    model = deformable_detector("hybrid").eval()
    model.proposals.num_queries = 6
    with pytest.raises(ConfigError, match=r"is 6, but num_queries of Enc.*model\.queries\.source\.num_queries\) is 8"):
        model([image_input(64, 96, 1)])


def hybrid_with(copies: object) -> DictConfig:
    """Return a small H-Deformable-DETR of 6 copies, with `copies` in its matcher."""
    model = small_model("h_deformable_detr/h_deformable_detr_r50_12ep.py")
    model.criterion.matcher.copies = copies
    return model


@pytest.mark.parametrize("number", [3, [6, 3]])
def test_hybrid_queries_and_matcher_have_one_number_of_copies(number: int | list[int]) -> None:
    said = rf"model\.criterion\.matcher\.copies\.o2m is {re.escape(str(number))}, but model\.queries\.copies, .* is 6: "
    with pytest.raises(ConfigError, match=said):
        instantiate(hybrid_with({"o2m": number}))


@pytest.mark.parametrize("copies", [None, {"main": 2}, {"o2m": 6}, {"o2m": [6, 6]}])
def test_copies_of_a_hybrid_branch(copies: dict[str, object] | None) -> None:
    losses = instantiate(hybrid_with(copies)).train()([image_input(64, 96, 2, 3)])
    assert all(torch.isfinite(x) for x in losses.values())


def denoising(**options: object) -> DenoisingQueries:
    return DenoisingQueries(main=AnchorQueries(num_queries=2, embed_dim=8), num_classes=3, embed_dim=8, **options)


def test_settings_of_dn_detr() -> None:
    """Its label noise is the probability itself, and its table has one more class, "unknown"."""
    for options in ({"label_noise": 1.5}, {"label_noise": -1}, {"box_noise": -1}, {"groups": 2.5}, {"max_queries": 0}):
        ((name, value),) = options.items()
        with pytest.raises(ConfigError, match=rf"model\.queries\.{name} is {value}, but must"):
            denoising(**options)
    parts = dict(deformable_detector("dab", num_classes=3).named_children())
    assert DeformableDETR(**parts | {"queries": denoising()}).num_classes == 3
    with pytest.raises(ConfigError, match=r"model\.queries\.num_classes is 3, but model\.head\.num_classes is 2"):
        DeformableDETR(**dict(deformable_detector("dab", num_classes=2).named_children()) | {"queries": denoising()})


def test_object_proposals_may_know_other_classes() -> None:
    """Only their class 0 is used."""
    parts, others = (dict(deformable_detector("two_stage", num_classes=n).named_children()) for n in (3, 1))
    model = DeformableDETR(**parts | {"proposals": others["proposals"]}).train()
    assert all(torch.isfinite(x) for x in model([image_input(64, 96, 2)]).values())


def test_shares() -> None:
    for kind in (TOODLoss, SigmoidFocalLoss, FocalCost, PositionModulatedCost):
        for alpha in (-0.1, 1.1, float("nan"), None, True):
            with pytest.raises(ConfigError, match=rf"s: alpha of {kind.__name__} is {alpha}, but must lie in"):
                kind(weight=1.0, alpha=alpha)
        assert [kind(weight=1.0, alpha=alpha).alpha for alpha in (0, 1.0)] == [0, 1]
    with pytest.raises(ConfigError, match=r"model\.postprocess\.weight is 1\.5, but must lie in"):
        FusedPostprocess(postprocess=nn.Identity(), weight=1.5)


EXPORTED = [x for x in (getattr(losses, name) for name in losses.__all__) if isinstance(x, type)]
LOSSES = [x for x in EXPORTED if issubclass(x, losses.SetLoss) and x not in (losses.SetLoss, losses.BinaryLoss)]
COSTS = [SoftmaxCost, FocalCost, PositionModulatedCost, HighOrderCost, L1Cost, GIoUCost]
# A class, an argument of it that must be a finite number, and the least one, if there is any.
NUMBERS = [
    *((x, "weight", None) for x in [*LOSSES, *COSTS]),
    *((x, "gamma", None) for x in LOSSES if "gamma" in inspect.signature(x).parameters),
    (losses.SoftmaxCrossEntropy, "background_weight", 0),
    (losses.VariFocalLoss, "alpha", 0),
    (losses.GIoULoss, "eps", 0),
    (FocalCost, "gamma", 0),
    (PositionModulatedCost, "gamma", 0),
    (PositionModulatedCost, "beta", 0),
    (PositionModulatedCost, "eps", 0),
    (HighOrderCost, "power", 0),
    (HighOrderCost, "eps", 0),
    (GIoUCost, "eps", 0),
]


@pytest.mark.parametrize(("kind", "name", "least"), NUMBERS, ids=[f"{x.__name__}.{y}" for x, y, _ in NUMBERS])
def test_numbers_of_losses_and_costs(kind: type[nn.Module], name: str, least: float | None) -> None:
    key = "model.criterion.losses" if issubclass(kind, losses.SetLoss) else "model.criterion.matcher.costs"
    wanted = "a finite number" + ("" if least is None else f" of at least {least}")
    for value in [None, "2", True, math.nan, math.inf, *([] if least is None else [least - 0.5])]:
        said = f"{key}: {name} of {kind.__name__} is {value!r}, but must be {wanted}: set it to a number"
        with pytest.raises(ConfigError, match=re.escape(said)):
            kind(**{"weight": 1.0, name: value})
    for value in (2, 1.5, -1.0 if name == "weight" else 0):
        assert getattr(kind(**{"weight": 1.0, name: value}), name) == value


def test_mixed_selection_takes_as_many_proposals_as_it_has_contents() -> None:
    (part,) = MixedSelectionQueries(num_queries=3, embed_dim=8)(None, some_proposals(3))
    assert part.content.shape == (2, 3, 8) and part.reference.shape == (2, 3, 4)
