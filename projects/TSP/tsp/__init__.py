"""TSP-FCOS and TSP-RCNN (Sun et al. 2021): set prediction by a transformer encoder alone, over points or boxes that a
convolutional detector proposes. Importing this package registers the detectors in detectron2, and the names of weights
that were trained with the official code.
"""

from align_detr.checkpoint.conversion import register_release
from align_detr.projects.tsp.checkpoint import convert_official_tsp_fcos, is_official_tsp_fcos, is_official_tsp_rcnn
from align_detr.projects.tsp.fcos import TSPFCOS
from align_detr.projects.tsp.rcnn import TSPRCNN
from align_detr.projects.tsp.rcnn_checkpoint import convert_official_tsp_rcnn

register_release(is_official_tsp_fcos, lambda state, _: convert_official_tsp_fcos(state))
register_release(is_official_tsp_rcnn, lambda state, _: convert_official_tsp_rcnn(state))

__all__ = ["TSPFCOS", "TSPRCNN"]
