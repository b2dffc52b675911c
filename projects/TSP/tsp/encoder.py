"""What both detectors give the library's encoder and ask of its matcher."""

from torch import Tensor, nn

from align_detr.errors import ConfigError
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


def check_every_image_counts(matcher: nn.Module, key: str) -> None:
    """Raises ConfigError for a matcher, at the config's `key`, that would leave images out of a step: the losses on
    proposals and on boxes, which know of no matching, would keep them.
    """
    if getattr(matcher, "on_nonfinite", "raise") != "raise":
        raise ConfigError(
            f'{key}.on_nonfinite is "{matcher.on_nonfinite}", but only the classes of the matched set would then do '
            'without the image: set it to "raise"'
        )
