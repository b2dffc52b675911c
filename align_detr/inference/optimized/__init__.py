"""A detector rewritten for prediction alone: `align_detr.optimize_for_inference`."""

from align_detr.inference.optimized.optimize import OptimizedDetector, optimize_for_inference

__all__ = ["OptimizedDetector", "optimize_for_inference"]
