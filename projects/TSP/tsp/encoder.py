"""What both detectors give the library's encoder: a set of tokens instead of a map."""

from torch import Tensor

from align_detr.structures import Memory


def token_set(tokens: Tensor, position: Tensor, valid: Tensor | None) -> Memory:
    """tokens, position (B, Q, C) and `valid` (B, Q), False for padding, or None without any -> what `Encoder` takes.

    Tokens have no map, so `shapes` and `valid_sizes` are empty. An image without a single valid token attends to its
    padding, since attention over nothing is NaN; `valid` still hides those tokens from losses and detections.
    """
    padding = None
    if valid is not None:
        padding = ~valid & valid.any(1, keepdim=True)
    return Memory(tokens=tokens, position=position, padding=padding, shapes=[], valid_sizes=[])
