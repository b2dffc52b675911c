"""The recipes of Deformable-DETR and H-Deformable-DETR, number by number, as in their own repositories; and that a
number that several parts need is stated once.
"""

import pytest
from detectron2.config import get_cfg, instantiate
from detectron2.modeling import build_model

from align_detr import model_zoo
from align_detr.config import add_align_detr_config
from support.paths import PROJECT

FAMILY = sorted(
    path.relative_to(PROJECT / "configs").as_posix()
    for folder in ("deformable_detr", "dab_deformable_detr", "h_deformable_detr", "align_detr")
    for path in (PROJECT / "configs" / folder).glob("*deformable*.py")
)


def rates(config: str) -> dict[str, float]:
    cfg = model_zoo.get_config(config)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)]: g["lr"] for g in instantiate(cfg.optimizer).param_groups for p in g["params"]}


@pytest.mark.parametrize(
    "config", ["deformable_detr/deformable_detr_r50_50ep.py", "h_deformable_detr/h_deformable_detr_r50_12ep.py"]
)
def test_learning_rates(config: str) -> None:
    slow = ("backbone.", "sampling_offsets", "reference_points")
    found = rates(config)
    assert any("sampling_offsets" in name for name in found)
    for name, rate in found.items():
        assert rate == pytest.approx(2e-5 if any(x in name for x in slow) else 2e-4, rel=1e-9), name


@pytest.mark.parametrize("config", FAMILY)
def test_every_factor_has_parameters_and_every_part_the_classes(config: str) -> None:
    """Of a model from the two yacs keys, under the name that it is registered with."""
    lazy = model_zoo.get_config(config)
    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = lazy.model._target_.__name__
    cfg.MODEL.ALIGN_DETR.CONFIG = config
    cfg.MODEL.ALIGN_DETR.OVERRIDES = ["model.head.num_classes=3"]
    model = build_model(cfg)
    assert type(model) is lazy.model._target_ and model.num_classes == 3
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    classes = {p.shape[0] for name, p in parameters.items() if "class_embed" in name}
    assert classes == {3}
    for factor in lazy.optimizer.params.lr_factors:
        assert any(f".{factor}." in f".{name}" for name in parameters), factor
    points = any("reference_points" in name for name in parameters)
    assert points == ("reference_points" in lazy.optimizer.params.lr_factors)


@pytest.mark.parametrize("config", FAMILY)
def test_recipe(config: str) -> None:
    """Epochs, the one drop of the rate, images a batch, rate."""
    cfg, name = model_zoo.get_config(config), config.split("/")[1]
    epochs = int(name.split("_")[-1].removesuffix("ep.py"))
    drop = {12: 11, 36: 30, 50: 40}[epochs]
    assert cfg.train.epochs == epochs and name.removesuffix(".py") in cfg.train.output_dir
    rates = [instantiate(cfg.lr_multiplier)(x / epochs) for x in (0, drop - 0.01, drop + 0.01, epochs - 0.01)]
    assert rates == pytest.approx([1, 1, 0.1, 0.1])
    assert cfg.optimizer.lr == (1e-4 if name.startswith("dab_") else 2e-4) and cfg.optimizer.weight_decay == 1e-4
    assert cfg.dataloader.train.total_batch_size == (16 if name.startswith(("dab_", "h_", "align_h_")) else 32)
    assert cfg.train.clip_grad.max_norm == 0.1


def test_deformable_detr() -> None:
    cfg = model_zoo.get_config("deformable_detr/deformable_detr_r50_50ep.py")
    model = instantiate(cfg.model)
    assert cfg.dataloader.train.total_batch_size == 32 and cfg.train.epochs == 50
    assert [cost.weight for cost in model.criterion.matcher.costs] == [2, 5, 2]
    assert [loss.weight for loss in model.criterion.losses] == [2, 5, 2]
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        assert layer.dropout.p == 0.1 and layer.ffn.linear1.out_features == 1024
    assert model.head.eps == 1e-5 and model.head.bbox_embed.layers[-1].bias.tolist() == [0, 0, -2, -2]
    assert model.neck.position.offset == -0.5 and model.postprocess.num_detections == 100
    assert not model.decoder.refine


def test_points_have_a_size_in_the_first_layer_only() -> None:
    """Later layers refine a box."""
    model = instantiate(model_zoo.get_config("deformable_detr/deformable_detr_r50_refine_50ep.py").model)
    assert [mlp.layers[-1].bias[2].item() for mlp in model.head.bbox_embed] == [-2, 0, 0, 0, 0, 0]
    two_stage = instantiate(model_zoo.get_config("deformable_detr/deformable_detr_r50_two_stage_50ep.py").model)
    assert not any(mlp.layers[-1].bias.any() for mlp in [*two_stage.head.bbox_embed, two_stage.proposals.bbox_embed])


def test_hybrid_branch() -> None:
    cfg = model_zoo.get_config("h_deformable_detr/h_deformable_detr_r50_12ep.py")
    model = instantiate(cfg.model)
    assert cfg.dataloader.train.total_batch_size == 16 and cfg.train.epochs == 12
    assert model.queries.num_one_to_one == 300 and model.queries.source.content.weight.shape == (1800, 256)
    assert model.proposals.num_queries == 1800 and model.decoder.look_forward_twice
    assert model.queries.copies == 6 and not model.criterion.matcher.limits.copies
    assert model.criterion.set_weights == {"o2m": 1.0} and model.head.eps == 1e-5
    assert [loss.weight for loss in model.criterion.losses] == [2, 5, 2]
    cfg.model.proposals.num_queries = 500
    assert cfg.model.queries.source.num_queries == 500


@pytest.mark.parametrize(
    "config",
    [
        "deformable_detr/deformable_detr_r50_two_stage_50ep.py",
        "dab_deformable_detr/dab_deformable_detr_r50_two_stage_50ep.py",
        "h_deformable_detr/h_deformable_detr_r50_36ep.py",
    ],
)
def test_the_number_of_classes_is_stated_once(config: str) -> None:
    cfg = model_zoo.get_config(config)
    cfg.model.head.num_classes = 7
    model = instantiate(cfg.model)
    assert model.num_classes == 7 and model.proposals.class_embed.out_features == 7


def test_aligned_variants() -> None:
    plain = model_zoo.get_config("align_detr/align_deformable_detr_r50_50ep.py").model.criterion
    assert plain.matcher.copies == {"main": [3, 3, 3, 3, 3, 1]}
    two_stage = model_zoo.get_config("align_detr/align_deformable_detr_r50_two_stage_50ep.py").model.criterion
    assert two_stage.matcher.copies == {"main": [3, 3, 3, 3, 3, 1], "enc": 3}
    hybrid = model_zoo.get_config("align_detr/align_h_deformable_detr_r50_12ep.py").model.criterion
    assert "copies" not in hybrid.matcher and hybrid.get("weighting") is None
    for criterion in (plain, two_stage, hybrid):
        loss = instantiate(criterion.losses[0])
        assert (type(loss).__name__, loss.weight, loss.alpha, loss.gamma) == ("IABCELoss", 2.0, 0.25, 2.0)
