"""Configs inside of weights files: read as data, and built only from parts that are known to do nothing else."""

import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from align_detr.errors import ConfigError
from align_detr.projects.table import PROJECTS

# packages whose `__all__` lists what a config may name
_FACES = ("align_detr.modeling", "align_detr.layers", *(f"align_detr.projects.{name}" for name in PROJECTS))
_NAMES = {
    "align_detr.data.DetrMapper",
    "align_detr.data.build_test_loader",
    "align_detr.evaluation.DetectionEvaluator",
    "detectron2.data.transforms.ResizeShortestEdge",
    "detectron2.layers.ShapeSpec",
    "detectron2.modeling.FPN",
    "detectron2.modeling.FastRCNNOutputLayers",
    "detectron2.modeling.StandardROIHeads",
    "detectron2.modeling.anchor_generator.DefaultAnchorGenerator",
    "detectron2.modeling.backbone.fpn.LastLevelMaxPool",
    "detectron2.modeling.box_regression.Box2BoxTransform",
    "detectron2.modeling.matcher.Matcher",
    "detectron2.modeling.poolers.ROIPooler",
    "detectron2.modeling.proposal_generator.RPN",
    "detectron2.modeling.proposal_generator.StandardRPNHead",
    "detectron2.modeling.roi_heads.FastRCNNConvFCHead",
    *(f"torch.nn.{name}" for name in ("LayerNorm", "GroupNorm", "BatchNorm2d", "Conv2d", "Linear", "Identity")),
    *(f"torch.nn.{name}" for name in ("ReLU", "GELU", "SiLU", "PReLU", "LeakyReLU", "Sigmoid", "Tanh")),
}
_INTERPOLATION = re.compile(r"\$\{[\w.\[\]-]*\}")


def model_config(text: str, path: str) -> DictConfig:
    """Return model, test data and `train` of the config in the weights file `path`, whose YAML is `text`.

    Nothing is imported or run for it but the packages that list this library's own parts. Raise ConfigError for text
    that is no YAML of plain values, and for a part that is not listed: a file of weights can come from anyone.
    """
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(_refusal(path, f"cannot be read ({' '.join(str(error).split())[:200]})")) from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ConfigError(_refusal(path, "has no model"))
    for value in _leaves(content):
        if isinstance(value, str) and "${" in _INTERPOLATION.sub("", value):
            raise ConfigError(_refusal(path, f"has the value '{value}', which would be computed"))
    kept: dict[str, Any] = {key: content[key] for key in ("model", "train") if isinstance(content.get(key), dict)}
    loaders = content.get("dataloader")
    if isinstance(loaders, dict):
        try:  # test data take values from the training's, which are left out
            loaders["test"] = OmegaConf.to_container(OmegaConf.create(content).dataloader.get("test"), resolve=True)
        except (OmegaConfBaseException, ValueError) as error:
            raise ConfigError(_refusal(path, f"cannot be read ({' '.join(str(error).split())[:200]})")) from error
        kept["dataloader"] = {key: loaders[key] for key in ("test", "evaluator") if loaders.get(key) is not None}
    for target in _targets(kept):
        if not _is_listed(target):
            raise ConfigError(_refusal(path, f"names {target}, which is not a part of this library"))
    return OmegaConf.create(kept, flags={"allow_objects": True})


def _is_listed(target: Any) -> bool:
    """Return whether a config of unknown origin may name `target`."""
    if not isinstance(target, str):
        return False
    package, _, name = target.rpartition(".")
    return target in _NAMES or (package in _FACES and name in import_module(package).__all__)


def _targets(node: Any) -> Iterator[Any]:
    """Yield every `_target_` of a node."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        for child in node.values():
            yield from _targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from _targets(child)


def _leaves(node: Any) -> Iterator[Any]:
    """Yield every key and value of a node that is no list or dictionary."""
    if isinstance(node, dict):
        for key, child in node.items():
            yield key
            yield from _leaves(child)
    elif isinstance(node, list):
        for child in node:
            yield from _leaves(child)
    else:
        yield node


def _refusal(path: str, what: str) -> str:
    return f"The config in {path} {what}: nothing of it is run; name the config yourself, if you trust it."
