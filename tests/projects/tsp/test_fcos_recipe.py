"""TSP-FCOS's official recipe, number by number, and what the variants change; expected values are written by hand."""

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling.backbone.resnet import BasicStem
from omegaconf import DictConfig
from torch import nn

from align_detr.modeling.losses import IABCELoss
from align_detr.modeling.weighting import PrimeSampleWeighting
from align_detr.projects.tsp.backbone import BGRStem, build_msra_resnet
from align_detr.projects.tsp.fcos.detector import TSPFCOS
from align_detr.projects.tsp.fcos.losses import RestrictedFocalLoss
from align_detr.projects.tsp.fcos.matching import CenternessClassCost, PointGIoUCost
from support.paths import PROJECT


def load(name: str) -> DictConfig:
    return LazyConfig.load(str(PROJECT / "projects" / "TSP" / "configs" / f"{name}.py"))


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    return load("tsp_fcos_r50_36ep")


@pytest.fixture(scope="module")
def model(cfg: DictConfig) -> TSPFCOS:
    return instantiate(cfg.model)


def test_encoder(model: TSPFCOS) -> None:
    assert len(model.encoder.layers) == 6 and type(model.encoder.norm) is nn.LayerNorm
    first = model.encoder.layers[0].self_attn.in_proj_weight
    for layer in model.encoder.layers:
        assert layer.self_attn.num_heads == 8 and layer.self_attn.dropout == 0.1 and layer.dropout.p == 0.1
        assert layer.self_attn.in_proj_weight.shape == (1536, 512)
        assert layer.ffn.linear1.weight.shape == (2048, 512) and layer.ffn.dropout.p == 0.1
        assert layer.self_attn.in_proj_weight is first or not torch.equal(layer.self_attn.in_proj_weight, first)


def test_points_and_selection(model: TSPFCOS) -> None:
    assert model.points.in_features == ["p3", "p4", "p5", "p6", "p7"] and model.points.strides == [8, 16, 32, 64, 128]
    for tower in (model.points.class_tower, model.points.box_tower):
        assert [type(x) for x in tower] == [nn.Conv2d, nn.GroupNorm, nn.ReLU] * 4
        assert all(x.num_groups == 32 for x in tower if isinstance(x, nn.GroupNorm))
        assert all(abs(x.weight.std() - 0.01) < 1e-4 and (x.bias == 0).all() for x in tower if isinstance(x, nn.Conv2d))
    for classifier in (model.points.class_embed, model.head.class_embed):
        torch.testing.assert_close(classifier.bias.sigmoid(), torch.full((80,), 0.01))
    assert model.selection.num_queries == 700 and model.selection.keep == (0.7, 1.0)
    assert model.selection.boost and not model.selection.keep_padding
    assert model.assigner.sizes == [64, 128, 256, 512] and model.assigner.radius == 1.5
    assert model.points.position.num_features == 256 and model.points.position.temperature == 10000
    assert (model.encoding.level_embed == 1).all() and model.encoding.level_embed.shape == (5, 512)


def test_losses_and_detections(model: TSPFCOS) -> None:
    matched, foreground = model.criterion.matched, model.criterion.foreground
    assert {type(c): c.weight for c in matched.matcher.costs} == {CenternessClassCost: 1, PointGIoUCost: 2}
    (loss,) = matched.losses
    assert type(loss) is RestrictedFocalLoss and (loss.weight, loss.alpha, loss.gamma) == (1, 0.25, 2)
    assert (loss.unmatched_weight, loss.matched_norm, loss.foreground_norm) == (0.1, 2, 0.2)
    assert {x.name: x.weight for x in foreground.losses} == {"giou": 1, "centerness": 1}
    assert foreground.losses[0].smooth == matched.matcher.costs[1].smooth == 1
    assert (model.criterion.dense.weight, model.criterion.dense.focal.alpha, model.criterion.dense.focal.gamma) == (
        1,
        0.25,
        2,
    )
    post = model.postprocess
    assert (post.num_detections, post.candidates_per_level, post.nms_threshold) == (100, 1000, 0.6)


def test_backbone(model: TSPFCOS) -> None:
    resnet = model.backbone.bottom_up
    assert [len(getattr(resnet, f"res{i}")) for i in (2, 3, 4, 5)] == [3, 4, 6, 3]
    assert {type(x) for x in resnet.modules() if "Norm" in type(x).__name__} == {FrozenBatchNorm2d}
    for stage in (resnet.res3, resnet.res4, resnet.res5):
        assert stage[0].conv1.stride == (2, 2) and stage[0].conv2.stride == (1, 1), "the MSRA form"
    trained = {name.split(".")[0] for name, p in resnet.named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}
    norms = {name: type(x) for name, x in model.backbone.top_block.named_modules() if "norm" in name}
    assert norms == {"p6.norm": nn.SyncBatchNorm, "p7.norm": nn.SyncBatchNorm}
    assert model.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.pixel_std.flatten().tolist() == [1, 1, 1]


def test_the_stem_sees_bgr() -> None:
    ours, plain = BGRStem(norm="FrozenBN"), BasicStem(norm="FrozenBN")
    plain.load_state_dict(ours.state_dict())
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(ours(image), plain(image[:, [2, 1, 0]]))
    small = build_msra_resnet(depth=18)
    assert small.output_shape()["res5"].channels == 512


def test_schedule(cfg: DictConfig) -> None:
    multiplier = instantiate(cfg.lr_multiplier)
    steps = [0, 500, 1000, 179_999, 180_001, 239_999, 240_001, 269_999]
    found = [multiplier(step / 270_000) for step in steps]
    assert found == pytest.approx([0.001, 0.5005, 1, 1, 0.1, 0.1, 0.01, 0.01], rel=1e-6)
    images = 118_287  # of COCO train2017
    assert cfg.train.epochs * (images // 16) == pytest.approx(270_000, rel=0.001)
    assert cfg.train.max_iter is None and cfg.dataloader.train.total_batch_size == 16
    assert cfg.train.clip_grad.max_norm == 0 and cfg.optimizer.clip_max_norm == 0.01


def test_data(cfg: DictConfig) -> None:
    train = cfg.dataloader.train
    assert train.dataset == "coco_2017_train" and train.filter_empty and train.aspect_ratio_grouping
    mapper = instantiate(train.mapper)
    assert mapper.augmentations_with_crop is None and mapper.image_format == "RGB"
    flip, resize = mapper.augmentations.augs
    assert type(flip) is T.RandomFlip and flip.prob == 0.5 and flip.horizontal
    assert list(resize.short_edge_length) == [640, 672, 704, 736, 768, 800] and resize.max_size == 1333
    assert cfg.dataloader.test.batch_size == 1


def test_r101_differs_in_nothing_else(cfg: DictConfig) -> None:
    other = load("tsp_fcos_r101_36ep")
    assert other.model.backbone.bottom_up.depth == 101 and "R-101" in other.train.init_checkpoint
    other.model.backbone.bottom_up.depth = 50
    assert other.model == cfg.model and other.optimizer == cfg.optimizer and other.lr_multiplier == cfg.lr_multiplier


def test_align_differs_in_the_matched_set_alone(cfg: DictConfig) -> None:
    other = load("align_tsp_fcos_r50_36ep")
    matched = instantiate(other.model.criterion.matched)
    assert type(matched.losses[0]) is IABCELoss and len(matched.losses) == 1
    assert type(matched.weighting) is PrimeSampleWeighting and matched.matcher.copies == {"main": 3}
    other.model.criterion.matched = cfg.model.criterion.matched
    other.train.output_dir = cfg.train.output_dir  # which the evaluator's folder follows
    assert other.model == cfg.model and other.optimizer == cfg.optimizer and other.dataloader == cfg.dataloader


def test_the_other_reading_of_the_drop_is_a_setting(cfg: DictConfig) -> None:
    node = cfg.model.selection.copy()
    node.keep = [0.3, 0.3]
    assert instantiate(node).keep == (0.3, 0.3)
