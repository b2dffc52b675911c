"""What results say beyond AP: tables of objects and detections, their overlaps and matching, and metrics of them.

numpy and SciPy only: results of any framework are read without torch or detectron2. Letters: I images, K classes,
G objects, D detections, P overlapping pairs.
"""

from align_detr.analysis.reading import read_results, read_truth
from align_detr.analysis.report import analyse, analyse_files
from align_detr.analysis.tables import Detections, Truth, make_objects, sort_detections

__all__ = [
    "Detections",
    "Truth",
    "analyse",
    "analyse_files",
    "make_objects",
    "read_results",
    "read_truth",
    "sort_detections",
]
