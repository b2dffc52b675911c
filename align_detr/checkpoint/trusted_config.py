"""Configs inside of weights files: read as data, and built only from parts that are known to do nothing else."""

import inspect
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig, OmegaConf
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
_PLAIN = (str, int, float, bool, type(None))
_MAX_LETTERS, _MAX_DEPTH, _MAX_VALUES = 1_000_000, 50, 50_000  # ours have 40,000 letters, 12 levels, 1,000 values


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without aliases, by which a short text can be endless."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases")
        return super().compose_node(parent, index)


class _Refused(Exception):
    """What is wrong with a config, as the end of a sentence."""


def config_beside(weights: str) -> str | None:
    """Return the text of the config.yaml that training leaves beside the file `weights`, None where there is none."""
    path = Path(weights).parent / "config.yaml"
    if not path.is_file():
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as text ({error}): name the --config-file.") from error


def model_config(text: str, path: str) -> DictConfig:
    """Return model, test data and `train` of the config in the weights file `path`, whose YAML is `text`.

    Nothing is imported or run for it but the packages that list this library's own parts. Raise ConfigError for text
    that is no YAML of plain values, and for a part that is not listed: a file of weights can come from anyone.
    """
    try:
        return _model_config(_content(text))
    except _Refused as error:
        raise ConfigError(_refusal(path, str(error))) from error
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(_refusal(path, f"cannot be read ({_one_line(error)})")) from error


def check_parts(node: Any, path: str) -> None:
    """Raise ConfigError for a node of the config of `path` whose values, resolved, are not plain or name other parts,
    and for a part that does not take the arguments given.

    `model_config` has checked the text; here the values are as `instantiate` reads them.
    """
    try:
        for target, arguments in _targets(node):
            _check_target(target)
            part = locate(target)
            try:
                inspect.signature(part).bind(**dict.fromkeys(arguments))
            except TypeError as error:
                raise _Refused(f"does not fit {target} ({error})") from error
    except _Refused as error:
        raise ConfigError(_refusal(path, str(error))) from error
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(_refusal(path, f"cannot be read ({_one_line(error)})")) from error


def _content(text: str) -> dict[str, Any]:
    """Return the content of the YAML text, nothing but plain values."""
    if len(text) > _MAX_LETTERS:
        raise _Refused(f"has {len(text):,} letters, of which at most {_MAX_LETTERS:,} are read")
    try:
        content = yaml.load(text, Loader=_Loader)
    except Exception as error:  # tags with values that do not fit raise errors of many kinds
        raise _Refused(f"cannot be read ({_one_line(error)})") from error
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise _Refused("has no model")
    _refuse_computed(content, _INTERPOLATION)
    return content


def _refuse_computed(node: Any, allowed: re.Pattern[str] | None) -> None:
    """Refuse keys and values with an interpolation other than the `allowed`."""
    for value in _leaves(node):
        if isinstance(value, str) and "${" in (value if allowed is None else allowed.sub("", value)):
            raise _Refused(f"has the value '{value}', which would be computed")


def _model_config(content: dict[str, Any]) -> DictConfig:
    """Return what `model_config` does, of the content."""
    kept: dict[str, Any] = {key: content[key] for key in ("model", "train") if isinstance(content.get(key), dict)}
    loaders = content.get("dataloader")
    if isinstance(loaders, dict):
        test = OmegaConf.create(content).dataloader.get("test")  # it takes values from the training's, which are left
        for _ in _leaves(test):  # before they are copied: as many as are allowed
            pass
        plain = OmegaConf.to_container(test, resolve=True) if OmegaConf.is_config(test) else test
        _refuse_computed(plain, None)  # two values can make an interpolation
        loaders["test"] = plain
        kept["dataloader"] = {key: loaders[key] for key in ("test", "evaluator") if loaders.get(key) is not None}
    for target, _ in _targets(kept):
        _check_target(target)
    for node in list(_nodes(kept)):
        if isinstance(node, dict) and str(node.get("_target_")).endswith(".TimmBackbone"):
            node["pretrained"] = False  # the file has the weights: nothing is downloaded
    return OmegaConf.create(kept, flags={"allow_objects": True})


def _check_target(target: Any) -> None:
    """Refuse `target` if a config of unknown origin may not name it."""
    listed = isinstance(target, str)
    if listed:
        package, _, name = target.rpartition(".")
        listed = target in _NAMES or (package in _FACES and name in import_module(package).__all__)
    if not listed:
        raise _Refused(f"names {target}, which is not a part of this library")


def _targets(node: Any) -> Iterator[tuple[Any, list[str]]]:
    """Yield every `_target_` of a node with the names of its arguments."""
    for each in _nodes(node):
        if isinstance(each, (dict, DictConfig)) and "_target_" in each:
            yield each["_target_"], [str(key) for key in each if key != "_target_"]


def _leaves(node: Any) -> Iterator[Any]:
    """Yield every key and value of a node that is no list or dictionary."""
    for each in _nodes(node):
        if isinstance(each, (dict, DictConfig)):
            yield from each
        elif not isinstance(each, (list, ListConfig)):
            yield each


def _nodes(root: Any) -> Iterator[Any]:
    """Yield a node and all below it, interpolations resolved; refuse keys and values that are not plain, and too many
    or too deep ones.
    """
    waiting, count = [(root, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        count += 1
        if depth > _MAX_DEPTH or count > _MAX_VALUES:
            raise _Refused(f"has more than {_MAX_DEPTH} levels or {_MAX_VALUES:,} values")
        if isinstance(node, (dict, DictConfig)):
            for key in node:
                if not isinstance(key, str):
                    raise _Refused(f"has the key {key!r}, which is not a text")
            children = [node[key] for key in node]
        elif isinstance(node, (list, ListConfig)):
            children = list(node)
        elif type(node) in _PLAIN:
            children = []
        else:
            raise _Refused(f"has a value of the type {type(node).__name__}, which is not plain")
        yield node
        waiting.extend((child, depth + 1) for child in reversed(children))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _refusal(path: str, what: str) -> str:
    return (
        f"The config in {path} {what}: nothing of it is run; if you trust it, name the config yourself "
        "(--config-file output/NAME/config.yaml of its training, or Detector(CONFIG, weights=FILE))."
    )
