"""Parts of a model that do not train."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase

from detectron2.engine import HookBase
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)


def freeze(model: nn.Module, patterns: str | Sequence[str] | None) -> list[nn.Module]:
    """Freeze the parameters that fit any of the `patterns`, log their number, and return the batch norms that have
    become fixed with them: `FixedNorms` keeps them so.

    A pattern is a name whose dotted parts occur in a row in a parameter's name ("backbone", "backbone.res2",
    "encoder.layers.0"), or a pattern of the whole name or of its beginning ("backbone.features.[0-3]", "*.bias"). Where
    a backbone's modules have other names, its `stages` say what a stage is: of MobileNetV2 stem and res2 to res5. Raise
    ConfigError for a pattern that fits nothing, and for what is no list.
    """
    patterns = [patterns] if isinstance(patterns, str) else patterns or []
    if isinstance(patterns, Mapping) or not isinstance(patterns, Sequence):
        raise ConfigError(f"train.freeze={patterns} must be a list of names: set it to [backbone], for example.")
    if not patterns:
        return []
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    frozen: set[str] = set()
    for pattern in patterns:
        fitting = {name for each in _with_stages(model, str(pattern)) for name in names if _fits(each, name)}
        if not fitting:
            remedy = _remedy(str(pattern), names)
            raise ConfigError(f"train.freeze names '{pattern}', which fits no parameter: {remedy}.")
        frozen |= fitting
    chosen = [p for name, p in model.named_parameters(remove_duplicate=False) if name in frozen]
    for parameter in chosen:
        parameter.requires_grad_(False)
    unique = {id(p): p.numel() for p in chosen}
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    logger.info(
        "Frozen by train.freeze (%s): %.3f M parameters in %d tensors; %.3f M parameters train.",
        ", ".join(map(str, patterns)),
        sum(unique.values()) / 1e6,
        len(unique),
        trainable / 1e6,
    )
    return [module for name, module in model.named_modules() if _is_fixed(module, name, frozen)]


class FixedNorms(HookBase):
    """Batch norms in evaluation mode in every training step: they use their statistics, and do not change them."""

    def __init__(self, *, norms: Iterable[nn.Module]) -> None:
        self.norms = list(norms)

    def before_step(self) -> None:
        """Set the mode again, since an evaluation leaves the whole model in training mode."""
        for norm in self.norms:
            norm.eval()


def _is_fixed(module: nn.Module, name: str, frozen: set[str]) -> bool:
    """Return whether a batch norm's parameters, of which there are some, are all frozen."""
    own = [f"{name}.{key}" if name else key for key, _ in module.named_parameters(recurse=False)]
    return isinstance(module, _BatchNorm) and bool(own) and frozen.issuperset(own)


def _fits(pattern: str, name: str) -> bool:
    if re.search(r"[*?\[]", pattern):
        return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")
    return f".{pattern}." in f".{name}."


def _with_stages(model: nn.Module, pattern: str) -> Iterator[str]:
    """Yield the pattern itself, and the modules of the stage that it names if a backbone has `stages`."""
    yield pattern
    *parent, stage = pattern.split(".")
    for name, module in model.named_modules():
        stages = getattr(module, "stages", None)
        if isinstance(stages, dict) and stage in stages and (not parent or _fits(".".join(parent), name)):
            yield from (f"{name}.{child}" for child in stages[stage])


def _remedy(pattern: str, names: Sequence[str]) -> str:
    """Return what to write instead: the nearest name of a module, or the names of the model's parts."""
    modules = {name.rsplit(".", n)[0] for name in names for n in range(1, name.count(".") + 1)}
    near = get_close_matches(pattern.removeprefix("model."), sorted(modules), n=1, cutoff=0.6)
    parts = ", ".join(sorted({name.split(".")[0] for name in names}))
    return f"write '{near[0]}'" if near else f"the model's parts are {parts}"
