"""The encoder's input, and a check of the matcher, which TSP-FCOS and TSP-RCNN share."""

from torch import Tensor, nn

from align_detr.errors import ConfigError
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


def check_every_image_counts(matcher: nn.Module, key: str) -> None:
    """Raise ConfigError if the matcher at the config's `key` skips images of a step.

    The losses that do not depend on the matching would still use these images.
    """
    if getattr(matcher, "on_nonfinite", "raise") != "raise":
        raise ConfigError(
            f'{key}.on_nonfinite is "{matcher.on_nonfinite}", which is not supported, because the other losses of TSP '
            'would still use the skipped image: set it to "raise".'
        )
