"""The recipes of the single-scale detectors and their aligned versions, number by number, written here by hand."""

import re

import pytest
from detectron2.config import LazyConfig, instantiate
from omegaconf import DictConfig
from paths import PROJECT
from torch import nn

from align_detr.lazy_config import load_config
from align_detr.modeling.losses import GIoULoss, IABCELoss, L1Loss, SigmoidFocalLoss
from align_detr.modeling.meta_arch import DABDETR, DNDETR, ConditionalDETR, GroupDETR

BACKBONES = {"r50": (50, 1), "r101": (101, 1), "r50_dc5": (50, 2), "r101_dc5": (101, 2)}
# folder, detector, dropout, temperature, class weight
SYSTEMS = [
    ("conditional_detr", ConditionalDETR, 0.1, 10000, 2.0),
    ("dab_detr", DABDETR, 0.0, 20, 1.0),
    ("dn_detr", DNDETR, 0.0, 20, 1.0),
    ("group_detr", GroupDETR, 0.1, 10000, 2.0),
]


def load(name: str) -> DictConfig:
    return LazyConfig.load(str(PROJECT / "configs" / f"{name}.py"))


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize(("folder", "detector", "dropout", "temperature", "class_weight"), SYSTEMS)
def test_recipe(
    folder: str, detector: type, dropout: float, temperature: float, class_weight: float, backbone: str
) -> None:
    cfg = load(f"{folder}/{folder}_{backbone}_50ep")
    depth, dilation = BACKBONES[backbone]
    model = cfg.model
    assert model._target_ is detector
    assert (model.backbone.depth, model.backbone.get("res5_dilation", 1)) == (depth, dilation)
    assert model.backbone.freeze_at == 1 and model.backbone.norm == "FrozenBN"
    assert model.encoder.num_layers == model.decoder.num_layers == 6
    for layer in (model.encoder.layer, model.decoder.layer, model.decoder.first_layer):
        assert (layer.embed_dim, layer.num_heads, layer.ffn_dim, layer.dropout) == (256, 8, 2048, dropout)
        assert layer.get("mask_padding", True) is True
    assert model.neck.position.temperature == temperature
    assert model.decoder.query_position.temperature == 10000
    assert model.queries.get("main", model.queries).num_queries == 300  # denoising goes before those of `main`
    assert model.postprocess.num_detections == 300
    losses = [instantiate(loss) for loss in model.criterion.losses]
    assert [type(x) for x in losses] == [SigmoidFocalLoss, L1Loss, GIoULoss]
    assert [x.weight for x in losses] == [class_weight, 5.0, 2.0]
    assert (losses[0].alpha, losses[0].gamma, losses[2].eps) == (0.25, 2.0, 1e-6)
    assert [x.weight for x in model.criterion.matcher.costs] == [2.0, 5.0, 2.0]
    assert cfg.train.epochs == 50 and cfg.dataloader.train.total_batch_size == 16
    assert cfg.optimizer.lr == 1e-4 and cfg.optimizer.weight_decay == 1e-4
    assert cfg.train.init_checkpoint.endswith(f"R-{depth}.pkl")
    rate = instantiate(cfg.lr_multiplier)
    assert rate(0.0) == rate(0.79) == 1.0 and rate(0.81) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["conditional_detr/conditional_detr_r50_50ep.py", "dn_detr/dn_detr_r50_50ep.py"])
def test_switch_for_weights_trained_without_a_mask(name: str) -> None:
    """The overrides that the config's text states reach all layers."""
    text = (PROJECT / "configs/common/models/conditional_detr_r50.py").read_text()
    decoder = instantiate(load_config(name, re.findall(r"\+model\S+", text)).model.decoder)
    assert [layer.mask_padding for layer in decoder.layers] == [False] * 6
    assert all(layer.mask_padding for layer in instantiate(load_config(name).model.decoder).layers)


def test_what_each_system_adds() -> None:
    assert load("group_detr/group_detr_r50_50ep").model.queries.groups == 11
    dab = load("dab_detr/dab_detr_r50_50ep").model
    assert dab.decoder.refine and dab.decoder.look_forward_twice
    assert instantiate(dab.encoder.layer.activation).weight.shape == (1,)
    assert isinstance(instantiate(dab.decoder.layer.activation), nn.PReLU)
    assert load("dab_detr/dab_detr_r50_3patterns_50ep").model.queries.num_patterns == 3
    dn = instantiate(load("dn_detr/dn_detr_r50_50ep").model).queries
    assert (dn.groups, dn.label_noise, dn.box_noise, dn.indicator, dn.max_queries) == (5, 0.2, 0.4, True, 500)


@pytest.mark.parametrize(
    ("aligned", "parent", "copies", "class_weight"),
    [
        *[
            (f"align_dab_detr_{backbone}_50ep", f"dab_detr/dab_detr_{backbone}_50ep", 3, 1.0)
            for backbone in ("r50", "r101", "r50_dc5", "r101_dc5")
        ],
        ("align_dab_detr_r50_k2_50ep", "dab_detr/dab_detr_r50_50ep", 2, 1.0),
        ("align_dn_detr_r50_50ep", "dn_detr/dn_detr_r50_50ep", 3, 1.0),
        ("align_conditional_detr_r50_50ep", "conditional_detr/conditional_detr_r50_50ep", 3, 2.0),
        ("align_group_detr_r50_50ep", "group_detr/group_detr_r50_50ep", 3, 2.0),
    ],
)
def test_aligned_versions(aligned: str, parent: str, copies: int, class_weight: float) -> None:
    """k in the intermediate layers, 1 in the last; alpha, gamma and tau of the paper; all else is the parent's."""
    cfg, plain = load(f"align_detr/{aligned}"), load(parent)
    criterion = cfg.model.criterion
    assert criterion.matcher.copies == {"main": [copies] * 5 + [1]}
    loss, weighting = instantiate(criterion.losses[0]), instantiate(criterion.weighting)
    assert type(loss) is IABCELoss and loss.weight == class_weight
    assert (loss.alpha, loss.gamma, weighting.alpha, weighting.tau) == (0.25, 2.0, 0.25, 1.5)
    assert cfg.train.output_dir == f"./output/{aligned}"
    criterion.losses[0] = plain.model.criterion.losses[0]
    del criterion.weighting, criterion.matcher.copies
    cfg.train.output_dir = plain.train.output_dir
    assert cfg == plain
