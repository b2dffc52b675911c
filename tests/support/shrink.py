"""Configs of the model zoo, each loaded once, and the one way from a config to a small model of the same parts."""

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from detectron2.config import LazyCall as L
from detectron2.config import instantiate
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf

from align_detr import model_zoo
from align_detr.modeling.backbone import ConvNeXt, SwinTransformer, TimmBackbone, build_resnet, build_small_resnet
from align_detr.modeling.neck import MultiScaleNeck
from align_detr.projects.tsp.backbone import build_msra_resnet

# What a number of this name becomes at most, wherever in a model it stands.
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
    out_channels=64,  # of a pyramid and of convolutions over it: two per group of GroupNorm, or a 1 x 1 map is 0
    channels=64,
    dn_number=8,
)
# Channels of res2 to res5: those of ResNets from depth 50 on, and of what takes their place.
MAPS = {"res2": 256, "res3": 512, "res4": 1024, "res5": 2048}
SMALL_MAPS = {"res2": 8, "res3": 12, "res4": 16, "res5": 24}
PIXEL_STD = [58.395, 57.12, 57.375]  # random weights behind pixels of a hundred saturate
RESNETS = (build_resnet, build_msra_resnet)
# arguments with which other backbones are small; the options of timm's are those of its ViTDet
OTHERS: dict[Any, dict[str, Any]] = {
    SwinTransformer: dict(embed_dim=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 2, 2], window_size=3, drop_path=0.2),
    ConvNeXt: dict(depths=[1, 1, 1, 1], channels=list(SMALL_MAPS.values())),
    TimmBackbone: dict(options=dict(embed_dim=16, depth=2, num_heads=2, global_attn_indexes=[1], window_size=3)),
}


@cache
def config(name: str) -> DictConfig:
    """Return a config of the model zoo, one for all tests: copy it before changing it."""
    return model_zoo.get_config(name)


def small_model(name: str, **sizes: Any) -> DictConfig:
    """Return the shrunk model of a config of the model zoo."""
    return shrink(config(name).model, **sizes)


def shrink(model: DictConfig, **sizes: Any) -> DictConfig:
    """Return a copy of a config's model with the same parts, few channels, layers, queries and classes, that
    reports detections of any score, and with a teacher of its size; `sizes` are numbers in place of those of SMALL.
    """
    small = model.copy()
    _shrink(small, {**SMALL, **sizes})
    if any(node in OTHERS for node in _targets(model.get("backbone"))):
        shapes = instantiate(small.backbone).output_shape()
        small.neck.in_channels = {name: shapes[name].channels for name in small.neck.in_channels}
    if small.get("neck") is not None and small.neck["_target_"] is MultiScaleNeck:
        small.neck.num_groups = sizes.get("embed_dim", SMALL["embed_dim"]) // 4
    if "points" in small and "encoding" in small:  # TSP-FCOS concatenates the features of its two towers
        small.encoding.in_channels = 2 * small.points.channels
    if "teacher" in small:
        small.teacher = _teacher_of(small)
    return small


def _targets(node: DictConfig | None) -> list[Any]:
    """Return the classes of a backbone's node and of the net in it."""
    return [] if node is None else [node["_target_"], *_targets(node.get("net"))]


def _shrink(node: DictConfig | ListConfig, sizes: dict[str, Any]) -> None:
    for key in list(node.keys()) if isinstance(node, DictConfig) else range(len(node)):
        if OmegaConf.is_interpolation(node, key):
            continue
        value = node[key]
        if key == "copies" and isinstance(value, DictConfig):  # one number per decoder layer: the last layers stay
            node[key] = {
                name: k if isinstance(k, int) else list(k)[-sizes["num_layers"] :] for name, k in value.items()
            }
        elif isinstance(value, DictConfig) and value.get("_target_") in RESNETS:
            node[key] = _small_backbone(value)
        elif isinstance(value, DictConfig) and value.get("_target_") in OTHERS:
            node[key] = OmegaConf.merge(value, OTHERS[value["_target_"]])
        elif key == "post_nms_topk":
            node[key] = [sizes["num_queries"]] * 2
        elif key in ("score_threshold", "test_score_thresh"):
            node[key] = 0.0
        elif key == "pixel_std":
            node[key] = PIXEL_STD
        elif key == "fc_dims":
            node[key] = [sizes["ffn_dim"]] * len(value)
        elif isinstance(value, (DictConfig, ListConfig)):
            _shrink(value, sizes)
        elif key in sizes and isinstance(value, (int, float)):
            node[key] = min(value, sizes[key])
        elif key == "in_channels" and value == MAPS["res5"]:
            node[key] = SMALL_MAPS["res5"]
        elif key in MAPS and value == MAPS[key]:  # of a neck's in_channels
            node[key] = SMALL_MAPS[key]


def _teacher_of(model: DictConfig) -> str:
    """Return a file of random weights for a model's config, the same one for equal configs."""
    path = Path(_folder().name) / f"{hashlib.sha256(as_json(model).encode()).hexdigest()[:16]}.pth"
    if not path.is_file():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            torch.save(instantiate(model).state_dict(), path)
    return str(path)


@cache
def _folder() -> TemporaryDirectory:
    """Return a folder that is gone at the end of the process."""
    return TemporaryDirectory()


def _small_backbone(node: DictConfig) -> DictConfig:
    """Return, in place of a ResNet, the same maps with fewer channels."""
    arguments = {key: tuple(x) if isinstance(x, ListConfig) else x for key, x in node.items() if key != "_target_"}
    assert _channels_of(node["_target_"], **arguments) == {name: MAPS[name] for name in node.out_features}
    return L(build_small_resnet)(
        channels=list(SMALL_MAPS.values()), blocks=[1] * 4, out_features=list(node.out_features), norm="FrozenBN"
    )


def as_json(node: DictConfig) -> str:
    """Return a node's content, with classes and functions by the names of their modules, so that equal nodes give equal
    texts.
    """
    return json.dumps(_with_full_names(OmegaConf.to_container(node, resolve=True)), sort_keys=True)


def _with_full_names(value: Any) -> Any:
    if isinstance(value, dict):
        target = {"_target_": locate(value["_target_"])} if isinstance(value.get("_target_"), str) else {}
        return {key: _with_full_names(x) for key, x in {**value, **target}.items()}
    if isinstance(value, (list, tuple)):
        return [_with_full_names(x) for x in value]
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else value


@cache
def _channels_of(build: Callable, **arguments: Any) -> dict[str, int]:
    """Return the maps that a backbone of full size puts out; it is built once for all configs."""
    with torch.device("meta"):  # draws no numbers
        return {name: shape.channels for name, shape in build(**arguments).output_shape().items()}
