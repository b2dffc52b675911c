"""The recipes of DINO, Align-DINO, Group-DINO and DN-Deformable-DETR, number by number: expected values are those of
the papers and of detrex, written here by hand.
"""

import pytest
import torch
from detectron2.config import instantiate
from omegaconf import DictConfig

from align_detr import model_zoo

# config: depth, levels, epochs, epoch of the drop
SCHEDULES = {
    "dino/dino_r50_4scale_12ep.py": (50, 4, 12, 11),
    "dino/dino_r50_4scale_24ep.py": (50, 4, 24, 20),
    "dino/dino_r50_4scale_36ep.py": (50, 4, 36, 30),
    "dino/dino_r50_5scale_12ep.py": (50, 5, 12, 11),
    "dino/dino_r50_5scale_24ep.py": (50, 5, 24, 20),
    "dino/dino_r50_5scale_36ep.py": (50, 5, 36, 30),
    "dino/dino_r101_4scale_12ep.py": (101, 4, 12, 11),
    "dino/dino_r101_4scale_24ep.py": (101, 4, 24, 20),
    "dino/dino_r101_4scale_36ep.py": (101, 4, 36, 30),
    "dino/dino_r50_4scale_official.py": (50, 4, 12, 11),
    "align_detr/align_dino_r50_4scale_12ep.py": (50, 4, 12, 11),
    "align_detr/align_dino_r50_4scale_24ep.py": (50, 4, 24, 20),
    "align_detr/align_dino_r50_4scale_k2_12ep.py": (50, 4, 12, 11),
    "align_detr/align_dino_r50_4scale_k2_24ep.py": (50, 4, 24, 20),
    "align_detr/align_dino_r50_4scale_giou_focal_12ep.py": (50, 4, 12, 11),
    "align_detr/align_dino_r50_4scale_high_order_12ep.py": (50, 4, 12, 11),
    "align_detr/align_dino_r50_4scale_newer_loss_12ep.py": (50, 4, 12, 11),
    "align_detr/align_dino_r50_4scale_newer_loss_24ep.py": (50, 4, 24, 20),
    "align_detr/align_dino_r101_4scale_12ep.py": (101, 4, 12, 11),
    "group_detr/group_dino_r50_4scale_12ep.py": (50, 4, 12, 11),
    "dn_deformable_detr/dn_deformable_detr_r50_12ep.py": (50, 4, 12, 11),
    "dn_deformable_detr/dn_deformable_detr_r50_50ep.py": (50, 4, 50, 40),
}

# config with another backbone: levels, epochs, epoch of the drop, file of the backbone's weights
OTHER_BACKBONES = {
    "dino/dino_swin_tiny_224_4scale_12ep.py": (4, 12, 11, "swin_tiny_patch4_window7_224"),
    "dino/dino_swin_large_384_4scale_12ep.py": (4, 12, 11, "swin_large_patch4_window12_384_22kto1k"),
    "dino/dino_swin_large_384_4scale_36ep.py": (4, 36, 30, "swin_large_patch4_window12_384_22kto1k"),
    "dino/dino_swin_large_384_5scale_12ep.py": (5, 12, 11, "swin_large_patch4_window12_384_22kto1k"),
    "dino/dino_swin_large_384_5scale_36ep.py": (5, 36, 30, "swin_large_patch4_window12_384_22kto1k"),
    "dino/dino_convnext_tiny_384_4scale_12ep.py": (4, 12, 11, "convnext_tiny_22k_1k_384"),
    "dino/dino_vit_base_4scale_12ep.py": (4, 12, 11, "mae_pretrain_vit_base"),
    "align_detr/align_dino_swin_tiny_224_4scale_12ep.py": (4, 12, 11, "swin_tiny_patch4_window7_224"),
    "align_detr/align_dino_swin_large_384_4scale_12ep.py": (4, 12, 11, "swin_large_patch4_window12_384_22kto1k"),
}


def test_no_config_is_left_out() -> None:
    families = ("dino/", "align_detr/align_dino_", "group_detr/group_dino_", "dn_deformable_detr/")
    assert {name for name in model_zoo.names() if name.startswith(families)} == {*SCHEDULES, *OTHER_BACKBONES}


@pytest.mark.parametrize("config", SCHEDULES)
def test_schedules_and_sizes(config: str) -> None:
    depth, levels, epochs, drop = SCHEDULES[config]
    cfg = model_zoo.get_config(config)
    check_schedule(cfg, levels, epochs, drop)
    assert cfg.train.init_checkpoint == f"detectron2://ImageNetPretrained/torchvision/R-{depth}.pkl"
    assert cfg.train.output_dir.endswith(config.split("/")[1].removesuffix(".py"))
    assert cfg.model.backbone.depth == depth


@pytest.mark.parametrize("config", OTHER_BACKBONES)
def test_schedules_and_sizes_with_other_backbones(config: str) -> None:
    levels, epochs, drop, file = OTHER_BACKBONES[config]
    cfg = model_zoo.get_config(config)
    check_schedule(cfg, levels, epochs, drop)
    assert cfg.train.init_checkpoint.endswith(f"/{file}.pth") and cfg.optimizer.params.lr_factors == {"backbone": 0.1}
    assert cfg.train.output_dir == f"./output/{config.split('/')[1].removesuffix('.py')}"
    with torch.device("meta"):
        shapes = instantiate(cfg.model.backbone).output_shape()
    assert {name: shape.channels for name, shape in shapes.items()} == cfg.model.neck.in_channels
    drop_path = {"swin_t": 0.1, "swin_l": 0.2, "convne": 0.0, "mae_pr": 0.1}[file[:6]]
    node = cfg.model.backbone.get("net", cfg.model.backbone)
    assert node.get("drop_path", 0.0) == drop_path


def check_schedule(cfg: DictConfig, levels: int, epochs: int, drop: int) -> None:
    """Check what all configs have in common."""
    assert cfg.train.epochs == epochs and cfg.dataloader.train.total_batch_size == 16
    multiplier = instantiate(cfg.lr_multiplier)
    steps = [0, drop - 0.01, drop + 0.01, epochs - 0.01]
    assert [multiplier(epoch / epochs) for epoch in steps] == pytest.approx([1, 1, 0.1, 0.1])
    assert cfg.optimizer.lr == 1e-4 and cfg.optimizer.weight_decay == 1e-4
    assert cfg.train.clip_grad.max_norm == 0.1
    assert len(instantiate(cfg.model.neck).levels) == levels
    assert cfg.model.encoder.layer.num_levels == cfg.model.decoder.layer.num_levels == levels


@pytest.mark.parametrize("config", ["dino/dino_r50_4scale_12ep.py", "dino/dino_r50_5scale_36ep.py"])
def test_dino(config: str) -> None:
    model = instantiate(model_zoo.get_config(config).model)
    assert model.proposals.num_queries == 900 and model.queries.main.content.weight.shape == (900, 256)
    noise = model.queries
    assert (noise.dn_number, noise.label_noise, noise.box_noise, noise.max_queries) == (100, 0.5, 1.0, 200)
    assert model.decoder.look_forward_twice and model.decoder.refine and len(model.decoder.layers) == 6
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        assert layer.dropout.p == 0 and layer.ffn.linear1.out_features == 2048
    assert [cost.weight for cost in model.criterion.matcher.costs] == [2, 5, 2]
    assert [loss.weight for loss in model.criterion.losses] == [1, 5, 2]
    assert (model.criterion.losses[0].alpha, model.criterion.losses[0].gamma) == (0.25, 2)
    assert model.postprocess.num_detections == 300 and not model.criterion.set_weights


# config: its parent, copies, class loss
ALIGNED = {
    "align_dino_r50_4scale_12ep": ("dino_r50_4scale_12ep", 3, "IABCELoss"),
    "align_dino_r50_4scale_24ep": ("dino_r50_4scale_24ep", 3, "IABCELoss"),
    "align_dino_r50_4scale_k2_12ep": ("dino_r50_4scale_12ep", 2, "IABCELoss"),
    "align_dino_r50_4scale_k2_24ep": ("dino_r50_4scale_24ep", 2, "IABCELoss"),
    "align_dino_r50_4scale_newer_loss_12ep": ("dino_r50_4scale_12ep", 2, "AlignLoss"),
    "align_dino_r50_4scale_newer_loss_24ep": ("dino_r50_4scale_24ep", 2, "AlignLoss"),
    "align_dino_swin_tiny_224_4scale_12ep": ("dino_swin_tiny_224_4scale_12ep", 3, "IABCELoss"),
    "align_dino_swin_large_384_4scale_12ep": ("dino_swin_large_384_4scale_12ep", 3, "IABCELoss"),
    "align_dino_r101_4scale_12ep": ("dino_r101_4scale_12ep", 3, "IABCELoss"),
}


@pytest.mark.parametrize("name", ALIGNED)
def test_align_dino(name: str) -> None:
    """DINO but for the criterion: in it, the class loss, the copies and the weighting."""
    parent, copies, kind = ALIGNED[name]
    cfg = model_zoo.get_config(f"align_detr/{name}.py")
    criterion = instantiate(cfg.model.criterion)
    assert criterion.matcher.copies == {"main": [copies] * 5 + [1], "enc": copies}
    loss, weighting = criterion.losses[0], criterion.weighting
    assert (type(loss).__name__, loss.weight, loss.alpha, loss.gamma) == (kind, 1, 0.25, 2)
    assert (weighting.alpha, weighting.tau) == (0.25, 1.5)
    plain = model_zoo.get_config(f"dino/{parent}.py")
    cfg.model.criterion.losses[0] = plain.model.criterion.losses[0]
    del cfg.model.criterion.weighting, cfg.model.criterion.matcher.copies
    cfg.train.output_dir = plain.train.output_dir
    for key in ("model", "optimizer", "dataloader", "train"):
        assert cfg[key] == plain[key], key


def test_group_dino() -> None:
    """DINO but for the contents: 3 groups of 900."""
    cfg = model_zoo.get_config("group_detr/group_dino_r50_4scale_12ep.py")
    model = instantiate(cfg.model)
    assert type(model).__name__ == "GroupDINO" and model.queries.main.groups == 3
    assert model.queries.main.content.weight.shape == (2700, 256) and model.proposals.num_queries == 900
    plain = model_zoo.get_config("dino/dino_r50_4scale_12ep.py").model
    cfg.model._target_, cfg.model.queries.main = plain._target_, plain.queries.main
    assert cfg.model == plain


def test_dn_deformable_detr() -> None:
    model = instantiate(model_zoo.get_config("dn_deformable_detr/dn_deformable_detr_r50_50ep.py").model)
    assert type(model).__name__ == "DNDeformableDETR" and model.proposals is None
    noise = model.queries
    assert (noise.groups, noise.label_noise, noise.box_noise, noise.max_queries) == (5, 0.2, 0.4, 500)
    assert noise.indicator and noise.label_embed.weight.shape == (81, 255)
    assert noise.main.anchor.weight.shape == (300, 4) and noise.main.content.weight.shape == (300, 256)


@pytest.mark.parametrize(
    ("config", "labels"),
    [
        ("dino/dino_r50_4scale_12ep.py", 7),
        ("dino/dino_r50_4scale_official.py", 7),
        ("group_detr/group_dino_r50_4scale_12ep.py", 7),
        ("dn_deformable_detr/dn_deformable_detr_r50_50ep.py", 8),
    ],
)
def test_the_number_of_classes_is_stated_once(config: str, labels: int) -> None:
    """DN-DETR's labels have "unknown" as well."""
    cfg = model_zoo.get_config(config)
    cfg.model.head.num_classes = 7
    model = instantiate(cfg.model)
    assert model.num_classes == 7 and model.queries.label_embed.num_embeddings == labels
    assert model.proposals is None or model.proposals.class_embed.out_features == 7


def test_original_settings() -> None:
    """Positions with temperature 20 and no offset, logits bounded with 1e-3, one head, box noise 0.4."""
    model = instantiate(model_zoo.get_config("dino/dino_r50_4scale_official.py").model)
    assert (model.neck.position.temperature, model.neck.position.offset) == (20, 0)
    assert model.decoder.query_position.temperature == 10000
    assert model.head.eps == 1e-3 and model.head.class_embed.out_features == 80
    assert (model.queries.dn_number, model.queries.label_noise, model.queries.box_noise) == (100, 0.5, 0.4)
    detrex = instantiate(model_zoo.get_config("dino/dino_r50_4scale_12ep.py").model)
    assert (detrex.neck.position.temperature, detrex.neck.position.offset) == (10000, -0.5)
    assert detrex.head.eps == 1e-3 and detrex.queries.box_noise == 1.0
