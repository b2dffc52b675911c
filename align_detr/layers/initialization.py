"""Initial weights that several parts share."""

from torch import nn


def initialize_matrices(module: nn.Module) -> None:
    """Draw every matrix of `module` from Xavier's uniform distribution, as DETR does for its transformer.

    Copies of a layer thus differ. Then reset each submodule that has its own `reset_parameters`, PyTorch's layers
    excepted.
    """
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
    for part in module.modules():
        reset = getattr(part, "reset_parameters", None)
        if callable(reset) and not type(part).__module__.startswith("torch."):
            reset()
