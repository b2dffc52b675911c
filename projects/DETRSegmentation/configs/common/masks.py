"""Masks in one line of a config: `add_masks(model)`. Its home is `align_detr.projects.detr_segmentation`."""

from align_detr.projects.detr_segmentation import add_masks

__all__ = ["add_masks"]
