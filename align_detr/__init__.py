"""Align-DETR for detectron2: set-prediction detectors and their IoU-aware versions."""

__version__ = "0.1.0"
