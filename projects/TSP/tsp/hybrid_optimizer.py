"""SGD for the convolutions and AdamW for the transformer, as one optimizer."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from align_detr.engine.optimizer import adamw, get_param_groups
from align_detr.errors import ConfigError


def get_hybrid_groups(
    *,
    model: nn.Module | None = None,
    lr: float,
    transformer_lr: float,
    transformer: Sequence[str] = ("encoder",),
    weight_decay: float = 1e-4,
    weight_decay_norm: float = 0.0,
) -> list[dict[str, Any]]:
    """Return groups for `HybridOptimizer`: AdamW with `transformer_lr` for the transformer, SGD with `lr` for the rest.

    `transformer` names its modules, as `get_param_groups` does. In TSP these are the encoder with its final norm;
    projections, position parameters and heads belong to SGD. Raise ConfigError without a model, or if one of the two
    has no parameter.
    """
    # The factors only keep the two kinds in separate groups, even if their rates are equal.
    factors = dict.fromkeys(transformer, 2.0)
    groups = get_param_groups(
        model=model, base_lr=1.0, lr_factors=factors, weight_decay=weight_decay, weight_decay_norm=weight_decay_norm
    )
    for group in groups:
        of_transformer = group["lr"] == 2.0
        group.update(optimizer="adamw" if of_transformer else "sgd", lr=float(transformer_lr if of_transformer else lr))
    kinds = {group["optimizer"] for group in groups}
    if len(kinds) < 2:
        raise ConfigError(
            f"optimizer.params.transformer names {', '.join(transformer)}, which gives {'/'.join(sorted(kinds))} "
            f"all parameters of {type(model).__name__}: name the modules of its transformer."
        )
    return groups


class HybridOptimizer(torch.optim.Optimizer):
    """torch's SGD and AdamW behind one `Optimizer`; the key `optimizer` of each group is "sgd" or "adamw".

    Each step first scales the gradient of the AdamW groups to a common norm of at most `clip_max_norm` (0: no
    clipping); the SGD groups are not clipped. The published 0.01 rescales practically every step. As Adam is invariant
    to a constant factor, this equalises the influence of the steps rather than bounding their size. The official code
    calls it "full_model" clipping. The trainer's clipping of the whole model (`train.clip_grad.max_norm`) must be off.

    Both optimizers share the groups and the state, so that schedulers, `GradScaler` and checkpoints see one optimizer.
    """

    def __init__(
        self,
        *,
        params: Sequence[Mapping[str, Any]],
        lr: float = 0.01,
        transformer_lr: float = 1e-4,
        momentum: float = 0.9,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-4,
        clip_max_norm: float = 0.01,
    ) -> None:
        """Build both optimizers; groups may override `lr`, `transformer_lr` and `weight_decay`."""
        groups = [dict(group) for group in params]
        for kind in ("sgd", "adamw"):
            if not any(group.get("optimizer") == kind for group in groups):
                raise ConfigError(
                    f"HybridOptimizer has no group of optimizer '{kind}': build the groups with get_hybrid_groups."
                )
        sgd_groups = [group for group in groups if group["optimizer"] == "sgd"]
        self.clip_max_norm = float(clip_max_norm)
        self.sgd = torch.optim.SGD(sgd_groups, lr=float(lr), momentum=float(momentum), weight_decay=float(weight_decay))
        self.adamw = adamw(
            params=[group for group in groups if group["optimizer"] == "adamw"],
            lr=transformer_lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
        )
        super().__init__([*self.sgd.param_groups, *self.adamw.param_groups], {})
        self._share_groups()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step both optimizers on the current gradients; return the result of `closure`, if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self.clip_max_norm > 0:
            clipped = [p for group in self.adamw.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(clipped, self.clip_max_norm)
        self.sgd.step()
        self.adamw.step()
        return loss

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group with all options of the optimizer that it names; raise ConfigError if it names none."""
        if param_group.get("optimizer") not in ("sgd", "adamw"):
            raise ConfigError(
                "A group of HybridOptimizer has no optimizer: set its key 'optimizer' to 'sgd' or 'adamw'."
            )
        super().add_param_group(param_group)
        self._share_groups()

    def __getstate__(self) -> dict[str, Any]:
        added = {name: getattr(self, name) for name in ("sgd", "adamw", "clip_max_norm")}
        return {**super().__getstate__(), **added}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # load_state_dict ends here, with new groups and a new state
        self._share_groups()

    def _share_groups(self) -> None:
        """Make both optimizers work on the groups and the state of this one."""
        for kind, optimizer in (("sgd", self.sgd), ("adamw", self.adamw)):
            optimizer.param_groups = [group for group in self.param_groups if group["optimizer"] == kind]
            optimizer.state = self.state
