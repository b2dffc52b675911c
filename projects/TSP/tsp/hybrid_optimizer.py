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
    """Groups for `HybridOptimizer`: the parameters of the modules named in `transformer` (dotted names, as in
    `get_param_groups`) go to AdamW with `transformer_lr`, all others to SGD with `lr`.

    In TSP the transformer is the encoder with its final norm and nothing else: projections, position parameters and
    heads belong to SGD. Raises ConfigError without a model, or where no parameter or every one is the transformer's.
    """
    # The factors serve as marks only: with equal rates the two kinds would share a group.
    marks = dict.fromkeys(transformer, 2.0)
    groups = get_param_groups(
        model=model, base_lr=1.0, lr_factors=marks, weight_decay=weight_decay, weight_decay_norm=weight_decay_norm
    )
    for group in groups:
        of_transformer = group["lr"] == 2.0
        group.update(optimizer="adamw" if of_transformer else "sgd", lr=float(transformer_lr if of_transformer else lr))
    kinds = {group["optimizer"] for group in groups}
    if len(kinds) < 2:
        raise ConfigError(
            f"optimizer.params.transformer names {', '.join(transformer)}, which leaves {'/'.join(sorted(kinds))} "
            f"alone with all parameters of {type(model).__name__}: name its transformer modules"
        )
    return groups


class HybridOptimizer(torch.optim.Optimizer):
    """torch's own SGD and AdamW behind one `Optimizer`; each group names its own as `optimizer`: "sgd" or "adamw".

    Before every step the gradient of the AdamW groups, by their common norm, is scaled to at most `clip_max_norm`
    (0: not at all); the SGD groups are not clipped. With the published 0.01 practically every step is rescaled, and
    since Adam does not see a common factor, that equalises the influence of the steps rather than bounding their size.
    The official code calls this "full_model" clipping. The trainer's own clipping of the whole model
    (`train.clip_grad.max_norm`) has to be off.

    Groups and state are shared with the two, so that schedulers, `GradScaler` and checkpoints see one optimizer.
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
        """`lr`, `transformer_lr` and `weight_decay` hold for groups that do not state their own."""
        groups = [dict(group) for group in params]
        for kind in ("sgd", "adamw"):
            if not any(group.get("optimizer") == kind for group in groups):
                raise ConfigError(f"HybridOptimizer has no group of optimizer '{kind}': see get_hybrid_groups")
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
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both on the present gradients; returns what `closure`, if any, returned."""
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
        """Adds a group that names its optimizer, with all of that one's options; raises ConfigError for another."""
        if param_group.get("optimizer") not in ("sgd", "adamw"):
            raise ConfigError("a group of HybridOptimizer must name its optimizer: 'sgd' or 'adamw'")
        super().add_param_group(param_group)
        self._share()

    def __getstate__(self) -> dict[str, Any]:
        own = {name: getattr(self, name) for name in ("sgd", "adamw", "clip_max_norm")}
        return {**super().__getstate__(), **own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # what load_state_dict ends with: new groups and a new state
        self._share()

    def _share(self) -> None:
        """Lets both work on this optimizer's groups and state."""
        for kind, optimizer in (("sgd", self.sgd), ("adamw", self.adamw)):
            optimizer.param_groups = [group for group in self.param_groups if group["optimizer"] == kind]
            optimizer.state = self.state
