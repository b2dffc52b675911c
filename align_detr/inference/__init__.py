"""Inference: what `align_detr.Detector` is made of."""

from align_detr.inference.detections import Detections

__all__ = ["Detections"]
