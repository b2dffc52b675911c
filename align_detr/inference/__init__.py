"""Inference: what `align_detr.Detector` and `align_detr.OnnxDetector` are made of; the latter's parts need no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from align_detr.inference.detections import Detections
else:

    def __getattr__(name: str) -> object:
        """Import what needs torch at its first use."""
        if name == "Detections":
            from align_detr.inference.detections import Detections

            return Detections
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["Detections"]
