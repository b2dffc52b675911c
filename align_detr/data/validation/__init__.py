"""Validation of a data set: all that is wrong, in the annotations, the image files, and across the splits."""

from align_detr.data.validation.report import Report
from align_detr.data.validation.validate import fix, validate

__all__ = ["Report", "fix", "validate"]
