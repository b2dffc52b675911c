"""The detectors in detectron2's registry."""

from align_detr.modeling.meta_arch.detr import DETR

__all__ = ["DETR"]
