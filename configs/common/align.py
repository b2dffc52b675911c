"""Align-DETR in one line of a config: `align(model)`. Its home is `align_detr.modeling`."""

from align_detr.modeling import align

__all__ = ["align"]
