"""DETR's official recipe, number by number: expected values are those of the paper and of the official repository,
written here by hand.
"""

import sys

import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import transforms as T
from detectron2.layers import FrozenBatchNorm2d
from omegaconf import DictConfig
from torch import nn

from align_detr.data.mapper import CROP_PROBABILITY, DetrMapper
from align_detr.modeling.losses import GIoULoss, L1Loss, SoftmaxCrossEntropy
from align_detr.modeling.matcher import GIoUCost, L1Cost, SoftmaxCost
from align_detr.modeling.meta_arch import DETR
from align_detr.modeling.postprocess import SoftmaxPostprocess
from support.paths import PROJECT

# 480 to 800 in steps of 32
SIDES = [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800]
# config: depth, blocks of res2 to res5, stride of res5, epochs, epoch of the drop
VARIANTS = {
    "detr_r50_500ep": (50, (3, 4, 6, 3), 32, 500, 400),
    "detr_r50_150ep": (50, (3, 4, 6, 3), 32, 150, 100),
    "detr_r50_dc5_500ep": (50, (3, 4, 6, 3), 16, 500, 400),
    "detr_r50_dc5_150ep": (50, (3, 4, 6, 3), 16, 150, 100),
    "detr_r101_500ep": (101, (3, 4, 23, 3), 32, 500, 400),
    "detr_r101_150ep": (101, (3, 4, 23, 3), 32, 150, 100),
    "detr_r101_dc5_500ep": (101, (3, 4, 23, 3), 16, 500, 400),
    "detr_r101_dc5_150ep": (101, (3, 4, 23, 3), 16, 150, 100),
}


def load(name: str) -> DictConfig:
    return LazyConfig.load(str(PROJECT / "configs" / "detr" / f"{name}.py"))


@pytest.fixture(scope="module")
def cfg() -> DictConfig:
    return load("detr_r50_500ep")


@pytest.fixture(scope="module")
def model(cfg: DictConfig) -> DETR:
    return instantiate(cfg.model)


def test_transformer(model: DETR) -> None:
    assert len(model.encoder.layers) == 6 and len(model.decoder.layers) == 6
    assert model.encoder.norm is None, "post-norm: only the decoder ends with a norm"
    assert type(model.decoder.norm) is nn.LayerNorm and model.decoder.norm.normalized_shape == (256,)
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        assert layer.ffn.linear1.weight.shape == (2048, 256) and layer.ffn.linear2.weight.shape == (256, 2048)
        assert type(layer.ffn.activation) is nn.ReLU
        assert isinstance(layer.dropout, nn.Dropout) and layer.dropout.p == 0.1
        assert isinstance(layer.ffn.dropout, nn.Dropout) and layer.ffn.dropout.p == 0.1
    encoder = [layer.self_attn for layer in model.encoder.layers]
    decoder = [attention for layer in model.decoder.layers for attention in (layer.self_attn, layer.cross_attn)]
    for attention in [*encoder, *decoder]:
        assert attention.num_heads == 8 and attention.dropout == 0.1
        assert attention.in_proj_weight.shape == (768, 256)


def test_queries_head_and_positions(model: DETR) -> None:
    assert model.queries.position.weight.shape == (100, 256)
    assert model.num_classes == 80 and model.head.class_embed.weight.shape == (81, 256)
    assert [tuple(x.weight.shape) for x in model.head.bbox_embed.layers] == [(256, 256), (256, 256), (4, 256)]
    position = model.neck.position
    assert position.temperature == 10000 and position.normalize is True
    assert position.num_features == 128 and position.offset == 0
    assert type(model.postprocess) is SoftmaxPostprocess


def test_losses_and_matcher(model: DETR) -> None:
    losses = {type(loss): loss.weight for loss in model.criterion.losses}
    assert losses == {SoftmaxCrossEntropy: 1, L1Loss: 5, GIoULoss: 2} and len(model.criterion.losses) == 3
    (classification,) = (loss for loss in model.criterion.losses if isinstance(loss, SoftmaxCrossEntropy))
    assert classification.background_weight == 0.1
    costs = model.criterion.matcher.costs
    assert {type(cost): cost.weight for cost in costs} == {SoftmaxCost: 1, L1Cost: 5, GIoUCost: 2} and len(costs) == 3


def test_pixels_are_those_of_imagenet(model: DETR) -> None:
    assert torch.equal(model.pixel_mean.flatten(), torch.tensor([123.675, 116.28, 103.53]))
    assert torch.equal(model.pixel_std.flatten(), torch.tensor([58.395, 57.12, 57.375]))


def test_optimizer_groups(model: DETR) -> None:
    node = load("detr_r50_500ep").optimizer
    node.params.model = model
    optimizer = instantiate(node)
    assert type(optimizer) is torch.optim.AdamW
    groups = {group["name"]: group for group in optimizer.param_groups}
    assert set(groups) == {"backbone", "base"} and len(optimizer.param_groups) == 2
    assert groups["base"]["lr"] == pytest.approx(1e-4, rel=1e-9)
    assert groups["backbone"]["lr"] == pytest.approx(1e-5, rel=1e-9)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    backbone = {id(p) for name, p in trained.items() if name.startswith("backbone.")}
    assert {id(p) for p in groups["backbone"]["params"]} == backbone and backbone
    assert {id(p) for p in groups["base"]["params"]} == {id(p) for p in trained.values()} - backbone
    for group in groups.values():
        assert group["weight_decay"] == 1e-4 and tuple(group["betas"]) == (0.9, 0.999) and group["eps"] == 1e-8


def test_training(cfg: DictConfig) -> None:
    assert cfg.train.clip_grad.max_norm == 0.1 and cfg.train.clip_grad.norm_type == 2
    assert cfg.train.max_iter is None, "the length is stated in epochs"
    assert not cfg.train.ema.enabled and not cfg.train.amp.enabled
    assert cfg.dataloader.train.total_batch_size == 64
    assert cfg.dataloader.train.dataset == "coco_2017_train" and cfg.dataloader.test.dataset == "coco_2017_val"
    assert not cfg.dataloader.train.get("filter_empty", False), "DETR trains on images without objects too"


def check_resize(augmentation: T.Augmentation, sides: list[int], longest: int) -> None:
    assert type(augmentation) is T.ResizeShortestEdge
    assert list(augmentation.short_edge_length) == sides and augmentation.max_size == longest
    assert not augmentation.is_range, "one of the sides, not any number between"


def check_flip(augmentation: T.Augmentation) -> None:
    assert type(augmentation) is T.RandomFlip and augmentation.prob == 0.5
    assert augmentation.horizontal and not augmentation.vertical


def test_augmentation_in_training(cfg: DictConfig) -> None:
    mapper = instantiate(cfg.dataloader.train.mapper)
    assert type(mapper) is DetrMapper and mapper.image_format == "RGB" and mapper.is_train
    flip, resize = mapper.augmentations.augs
    check_flip(flip)
    check_resize(resize, SIDES, 1333)


def test_augmentation_with_crop(cfg: DictConfig) -> None:
    flip, before, crop, resize = instantiate(cfg.dataloader.train.mapper).augmentations_with_crop.augs
    check_flip(flip)
    check_resize(before, [400, 500, 600], sys.maxsize)
    assert type(crop) is T.RandomCrop and crop.crop_type == "absolute_range" and list(crop.crop_size) == [384, 600]
    check_resize(resize, SIDES, 1333)
    assert CROP_PROBABILITY == 0.5


def test_images_in_evaluation(cfg: DictConfig) -> None:
    mapper = instantiate(cfg.dataloader.test.mapper)
    assert mapper.image_format == "RGB" and not mapper.is_train and mapper.augmentations_with_crop is None
    (resize,) = mapper.augmentations.augs
    assert type(resize) is T.ResizeShortestEdge
    assert set(resize.short_edge_length) == {800} and resize.max_size == 1333


def test_backbone_trains_from_res3_on(model: DETR) -> None:
    norms = [x for x in model.backbone.modules() if "Norm" in type(x).__name__]
    assert len(norms) == 53 and {type(x) for x in norms} == {FrozenBatchNorm2d}  # ResNet-50: 53 convolutions
    trained = {name.split(".")[0] for name, p in model.backbone.named_parameters() if p.requires_grad}
    frozen = {name.split(".")[0] for name, p in model.backbone.named_parameters() if not p.requires_grad}
    assert trained == {"res3", "res4", "res5"} and frozen == {"stem", "res2"}
    for stage in (model.backbone.res3, model.backbone.res4, model.backbone.res5):
        assert stage[0].conv1.stride == (1, 1) and stage[0].conv2.stride == (2, 2), "torchvision's form"


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name: str) -> None:
    depth, blocks, stride, epochs, drop = VARIANTS[name]
    cfg = load(name)
    assert cfg.train.epochs == epochs
    multiplier = instantiate(cfg.lr_multiplier)
    steps = [0, drop - 1, drop + 1, epochs - 1]
    assert [multiplier(epoch / epochs) for epoch in steps] == pytest.approx([1, 1, 0.1, 0.1])
    assert cfg.train.init_checkpoint == f"detectron2://ImageNetPretrained/torchvision/R-{depth}.pkl"
    assert cfg.train.output_dir.endswith(name)

    backbone = instantiate(cfg.model.backbone)
    assert tuple(len(getattr(backbone, f"res{i}")) for i in (2, 3, 4, 5)) == blocks
    shape = backbone.output_shape()
    assert set(shape) == {"res5"} and shape["res5"].stride == stride and shape["res5"].channels == 2048
    dilations = [block.conv2.dilation[0] for block in backbone.res5]
    assert dilations == ([1, 2, 2] if stride == 16 else [1, 1, 1])
    assert all(p.requires_grad == (not key.startswith(("stem.", "res2."))) for key, p in backbone.named_parameters())


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"detr_r50_500ep"}))
def test_variants_differ_in_nothing_else(cfg: DictConfig, name: str) -> None:
    other = load(name)
    other.model.backbone = cfg.model.backbone
    for key in ("epochs", "output_dir", "init_checkpoint"):
        other.train[key] = cfg.train[key]
    for key in ("model", "optimizer", "train", "dataloader"):
        assert other[key] == cfg[key], key
