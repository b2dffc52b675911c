"""Anchor-DETR's recipe, number by number."""

import re

import pytest
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.lazy_config import load_config
from align_detr.modeling.decoder_layers import DecoderLayer
from align_detr.modeling.encoder import EncoderLayer
from align_detr.modeling.losses import GIoULoss, L1Loss, SigmoidFocalLoss
from align_detr.projects.anchor_detr import (
    AnchorDETR,
    PointEncoding,
    RowColumnDecoderLayer,
    RowColumnEncoderLayer,
    RowColumnEncoding,
)
from align_detr.projects.anchor_detr.attention import RowColumnAttention
from support.paths import PROJECT

BACKBONES = {"r50": (50, 1), "r101": (101, 1), "r50_dc5": (50, 2), "r101_dc5": (101, 2), "r50_mha": (50, 1)}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_recipe(backbone: str) -> None:
    cfg = model_zoo.get_config(f"AnchorDETR/anchor_detr_{backbone}_50ep.py")
    assert cfg.train.epochs == 50 and cfg.dataloader.train.total_batch_size == 16 and cfg.optimizer.lr == 1e-4
    rate = instantiate(cfg.lr_multiplier)
    assert rate(0.79) == 1.0 and rate(0.81) == pytest.approx(0.1)
    model, (depth, dilation) = cfg.model, BACKBONES[backbone]
    assert (model.backbone.depth, model.backbone.get("res5_dilation", 1), model.backbone.freeze_at) == (
        depth,
        dilation,
        2,
    )
    assert cfg.train.init_checkpoint.endswith(f"R-{depth}.pkl")
    assert model._target_ is AnchorDETR and model.postprocess.num_detections == 100
    assert (model.queries.num_queries, model.queries.num_patterns, model.neck.num_groups) == (300, 3, 32)
    assert model.encoder.num_layers == model.decoder.num_layers == 6
    parts = (RowColumnEncoderLayer, RowColumnDecoderLayer, RowColumnEncoding)
    parts = (EncoderLayer, DecoderLayer, PointEncoding) if backbone == "r50_mha" else parts
    assert (model.encoder.layer._target_, model.decoder.layer._target_, model.neck.position._target_) == parts
    for layer in (model.encoder.layer, model.decoder.layer):
        assert (layer.embed_dim, layer.num_heads, layer.ffn_dim, layer.dropout) == (256, 8, 1024, 0.0)
    assert (model.head.eps, model.head.size_logit) == (1e-3, -2.0)
    losses = [instantiate(loss) for loss in model.criterion.losses]
    assert [(type(x), x.weight) for x in losses] == [(SigmoidFocalLoss, 2.0), (L1Loss, 5.0), (GIoULoss, 2.0)]
    assert losses[2].eps == 1e-6 and [x.weight for x in model.criterion.matcher.costs] == [2.0, 5.0, 2.0]


def test_switches_of_the_readme() -> None:
    """The README's overrides give the port's treatment of padding in the neck and in every layer."""
    options = re.findall(r"\+model[\w.=]+", (PROJECT / "projects/AnchorDETR/README.md").read_text())
    model = instantiate(load_config("AnchorDETR/anchor_detr_r50_50ep.py", options).model)
    attentions = [x for x in model.modules() if isinstance(x, RowColumnAttention)]
    assert len(attentions) == 12 and all(x.average_padding for x in attentions) and model.neck.norm_padding
