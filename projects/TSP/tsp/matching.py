"""What both detectors ask of the library's matcher."""

from torch import nn

from align_detr.errors import ConfigError


def check_every_image_counts(matcher: nn.Module, key: str) -> None:
    """Raises ConfigError for a matcher, at the config's `key`, that would leave images out of a step: the losses on
    proposals and on boxes, which know of no matching, would keep them.
    """
    if getattr(matcher, "on_nonfinite", "raise") != "raise":
        raise ConfigError(
            f'{key}.on_nonfinite is "{matcher.on_nonfinite}", but only the classes of the matched set would then do '
            'without the image: set it to "raise"'
        )
