"""The table of what takes the place of what, and the walk over a model."""

from collections.abc import Callable

from torch import nn

from align_detr.inference.optimized.fused import Kernels, is_plain
from align_detr.inference.optimized.layout import KeptNeck, can_keep
from align_detr.inference.optimized.parts import (
    FusedAttention,
    FusedFeedForward,
    FusedMLP,
    KeptDeformableEncoder,
    SelectedProposals,
    has_relu,
)
from align_detr.inference.optimized.resnet import FusedResNet, can_fuse
from align_detr.layers.attention import MultiHeadAttention
from align_detr.layers.mlp import MLP
from align_detr.layers.small_maps import StridedConv2d
from align_detr.modeling.deformable import DeformableEncoder
from align_detr.modeling.proposals import ClassProposals, ObjectProposals

Replace = Callable[[nn.Module], nn.Module]


class Replacements:
    """What takes the place of a module, by its exact type; other modules stay, and their children are looked at.

    A subclass may do something else and is not replaced for its parent. Linear layers and convolutions are replaced
    inside the library's own modules, which call them; others may read their weights.
    """

    def __init__(self, kernels: Kernels) -> None:
        self.kernels = kernels

    def apply(self, module: nn.Module) -> None:
        """Replace the modules inside a module, children before parents where both are in the table."""
        own = type(module).__module__.startswith("align_detr.")
        for name, child in list(module.named_children()):
            whole = self._whole(child)
            if whole is None:
                self.apply(child)
                whole = self._around(child) or (self._leaf(child) if own or _is_list(module) else None)
            if whole is not None:
                setattr(module, name, whole)

    def _whole(self, module: nn.Module) -> nn.Module | None:
        """Return what replaces a module with all that is in it, or None."""
        if can_fuse(module):
            return FusedResNet(module, self.kernels)
        if type(module) is MultiHeadAttention:
            return FusedAttention(module, self.kernels)
        if type(module) is MLP:
            return FusedMLP(module, self.kernels)
        return FusedFeedForward(module, self.kernels) if has_relu(module) else None

    def _around(self, module: nn.Module) -> nn.Module | None:
        """Return what takes a module in, whose children have been replaced, or None."""
        if can_keep(module):
            return KeptNeck(module)
        if type(module) is DeformableEncoder:
            return KeptDeformableEncoder(module)
        exact = type(module) in (ClassProposals, ObjectProposals)
        return SelectedProposals(module) if exact and isinstance(module, (ClassProposals, ObjectProposals)) else None

    def _leaf(self, module: nn.Module) -> nn.Module | None:
        """Return what replaces a single layer, or None."""
        if type(module) is nn.Linear:
            return self.kernels.linear(module)
        if isinstance(module, nn.Conv2d) and type(module) in (nn.Conv2d, StridedConv2d) and is_plain(module):
            return self.kernels.convolution(module)
        return None


def _is_list(module: nn.Module) -> bool:
    """Say whether a module does nothing but call its children, or hold them."""
    return type(module) is nn.ModuleList or type(module).forward is nn.Sequential.forward
