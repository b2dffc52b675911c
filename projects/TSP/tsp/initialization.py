"""Initial weights that both detectors share."""

from torch import nn


def initialize_convolutions(module: nn.Module, *, std: float = 0.01) -> None:
    """Draw the weights of all convolutions in `module` from a normal distribution and set their biases to zero."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=std)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
