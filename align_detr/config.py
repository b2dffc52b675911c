"""The bridge from detectron2's yacs configs: two keys name a LazyConfig file and overrides of it.

    cfg = get_cfg()
    add_align_detr_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "DETR"
    cfg.MODEL.ALIGN_DETR.CONFIG = "detr/detr_r50_500ep.py"
    cfg.MODEL.ALIGN_DETR.OVERRIDES = ["model.head.num_classes=3"]
    model = build_model(cfg)

MODEL.PIXEL_MEAN and PIXEL_STD are not read: those of the LazyConfig hold, for RGB images.

For a detector of a project, import the project first (`import align_detr.projects.anchor_detr`): that registers it.
"""

from detectron2.config import CfgNode

import align_detr.modeling.meta_arch  # noqa: F401  (enters the detectors into detectron2's registry)
from align_detr.lazy_config import model_from_yacs

__all__ = ["add_align_detr_config", "model_from_yacs"]


def add_align_detr_config(cfg: CfgNode) -> None:
    """Add the keys MODEL.ALIGN_DETR.CONFIG (a model-zoo name or a path) and MODEL.ALIGN_DETR.OVERRIDES (a list of
    "key=value") to a yacs config, set INPUT.FORMAT to RGB, and register the detectors.
    """
    cfg.MODEL.ALIGN_DETR = CfgNode()
    cfg.MODEL.ALIGN_DETR.CONFIG = ""
    cfg.MODEL.ALIGN_DETR.OVERRIDES = []
    cfg.INPUT.FORMAT = "RGB"
