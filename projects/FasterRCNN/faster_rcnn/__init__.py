"""Faster R-CNN with FPN (Ren et al. 2015, Lin et al. 2017), the baseline of TSP, with detectron2's parts.

Importing this package registers the detector in detectron2.
"""

from align_detr.projects.faster_rcnn.rcnn import RCNN, FasterRCNN, Float32OutputLayers, Float32ROIPooler

__all__ = ["RCNN", "FasterRCNN", "Float32OutputLayers", "Float32ROIPooler"]
