"""Every config file: loaded, shrunk, trained for one step and evaluated. New configs and projects are found by
themselves.
"""

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import LazyCall as L
from detectron2.config import LazyConfig, instantiate
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils.events import EventStorage
from omegaconf import DictConfig, ListConfig

from align_detr.modeling.backbone import build_resnet, build_small_resnet
from align_detr.projects.tsp.backbone import build_msra_resnet
from support.inputs import image_input
from support.paths import PROJECT

CONFIGS = sorted(
    path
    for folder in [PROJECT / "configs", *(PROJECT / "projects").glob("*/configs")]
    for path in folder.rglob("*.py")
    if "common" not in path.relative_to(folder).parts
)
# What a number of this name becomes, wherever in a model it stands.
SMALL = dict(
    embed_dim=32,
    normalized_shape=32,
    num_features=16,
    num_heads=2,
    ffn_dim=32,
    num_layers=2,
    num_queries=12,
    num_one_to_one=5,
    num_classes=3,
)
# Channels of res2 to res5: those of ResNets from depth 50 on, and of what takes their place.
MAPS = {"res2": 256, "res3": 512, "res4": 1024, "res5": 2048}
SMALL_MAPS = {"res2": 8, "res3": 12, "res4": 16, "res5": 24}
RESNETS = (build_resnet, build_msra_resnet)


@cache
def load(path: Path) -> DictConfig:
    """A config, for all tests; copy what is changed."""
    return LazyConfig.load(str(path))


@cache
def channels_of(build: Callable, **arguments: Any) -> dict[str, int]:
    """The maps that a backbone of full size puts out; it is built once for all configs."""
    with torch.device("meta"):  # draws no numbers
        return {name: shape.channels for name, shape in build(**arguments).output_shape().items()}


def small_backbone(node: DictConfig) -> DictConfig:
    """In place of a ResNet: the same maps with fewer channels."""
    arguments = {key: tuple(x) if isinstance(x, ListConfig) else x for key, x in node.items() if key != "_target_"}
    assert channels_of(node["_target_"], **arguments) == {name: MAPS[name] for name in node.out_features}
    return L(build_small_resnet)(
        channels=list(SMALL_MAPS.values()), blocks=[1] * 4, out_features=list(node.out_features), norm="FrozenBN"
    )


def shrink(node: DictConfig | ListConfig) -> None:
    """Makes a model small in place, keeping its structure."""
    for key in list(node.keys()) if isinstance(node, DictConfig) else range(len(node)):
        value = node[key]
        if key == "copies" and isinstance(value, DictConfig):  # one number a decoder layer, the last layers stay
            node[key] = {
                name: k if isinstance(k, int) else list(k)[-SMALL["num_layers"] :] for name, k in value.items()
            }
        elif isinstance(value, DictConfig) and value.get("_target_") in RESNETS:
            node[key] = small_backbone(value)
        elif key == "post_nms_topk":
            node[key] = [SMALL["num_queries"]] * 2
        elif isinstance(value, (DictConfig, ListConfig)):
            shrink(value)
        elif key in SMALL and isinstance(value, int):
            node[key] = min(value, SMALL[key])
        elif key == "in_channels" and value == MAPS["res5"]:
            node[key] = SMALL_MAPS["res5"]
        elif key in MAPS and value == MAPS[key]:  # of a neck's in_channels
            node[key] = SMALL_MAPS[key]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_train_and_evaluate(path: Path) -> None:
    cfg = copy.deepcopy(load(path))
    assert {"model", "optimizer", "lr_multiplier", "train", "dataloader"} <= set(cfg)
    assert cfg.train.max_iter or cfg.train.epochs > 0
    shrink(cfg.model)
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    optimizer = instantiate(cfg.optimizer)
    assert instantiate(cfg.lr_multiplier)(0.0) > 0
    classes = model.num_classes
    batch = [image_input(96, 70, 3, classes), image_input(64, 96, 0, classes)]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trained.items()}
    with EventStorage():  # which detectron2's proposal generators report to
        losses = model.train()(batch)
    sum(losses.values()).backward()
    optimizer.step()
    assert all(torch.isfinite(value) for value in losses.values())
    for name, p in trained.items():
        # A gradient of zero is ordinary (self-attention of queries that are all zero), a missing one breaks training on
        # several GPUs.
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
    # What stays are norms that TSP-RCNN's proposal head keeps for each level, on levels where no object is.
    assert sum(not torch.equal(p, before[name]) for name, p in trained.items()) > 0.8 * len(trained)
    with torch.no_grad():
        results = model.eval()(batch)
    for result, image in zip(results, batch, strict=True):
        found = result["instances"]
        assert found.image_size == (image["height"], image["width"])
        assert torch.isfinite(found.pred_boxes.tensor).all() and torch.isfinite(found.scores).all()
        assert ((found.pred_classes >= 0) & (found.pred_classes < classes)).all()


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 8


def test_each_run_has_a_folder_of_its_own() -> None:
    folders = [load(path).train.output_dir for path in CONFIGS]
    assert len(set(folders)) == len(folders)


def test_each_detector_is_registered_and_has_a_config() -> None:
    """In detectron2's registry under its own name, each of which a yacs config can ask for."""
    detectors = {load(path).model._target_ for path in CONFIGS}
    registered = {detector for _, detector in META_ARCH_REGISTRY}
    assert detectors <= registered
    assert {x for x in registered if x.__module__.startswith("align_detr.")} <= detectors
