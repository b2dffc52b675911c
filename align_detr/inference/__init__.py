"""Inference: what `align_detr.Detector` and `align_detr.OnnxDetector` are made of; the latter's parts need no torch."""
