"""The encoder's input."""

from torch import Tensor

from align_detr.structures import Memory


def token_set(tokens: Tensor, position: Tensor, valid: Tensor | None) -> Memory:
    """Return the input of `Encoder`: tokens and position (B, Q, C), and `valid` (B, Q), False for padding.

    `valid` is None where no token is padding. Tokens have no map, so `shapes` and `valid_sizes` are empty. An image
    without a valid token attends to its padding, because attention over nothing is NaN; losses and detections still
    leave these tokens out.
    """
    padding = None
    if valid is not None:
        padding = ~valid & valid.any(1, keepdim=True)
    return Memory(tokens=tokens, position=position, padding=padding, shapes=[], valid_sizes=[])
