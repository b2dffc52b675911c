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

from typing import Any

from align_detr.errors import ConfigError


def add_align_detr_config(cfg: Any) -> None:
    """Adds the keys MODEL.ALIGN_DETR.CONFIG (a model-zoo name or a path) and MODEL.ALIGN_DETR.OVERRIDES (a list of
    "key=value") to a yacs config, sets INPUT.FORMAT to RGB, and registers the detectors.
    """
    from detectron2.config import CfgNode

    import align_detr.modeling.meta_arch  # noqa: F401  (enters the registry)

    cfg.MODEL.ALIGN_DETR = CfgNode()
    cfg.MODEL.ALIGN_DETR.CONFIG = ""
    cfg.MODEL.ALIGN_DETR.OVERRIDES = []
    cfg.INPUT.FORMAT = "RGB"


def model_from_yacs(cfg: Any, detector: type) -> dict[str, Any]:
    """The instantiated constructor arguments of `detector` from the two keys.

    Raises `ConfigError` where the keys are missing, an override names no key, images come in another order than RGB,
    or the file describes a detector that `detector` is neither nor derives from.
    """
    from detectron2.config import instantiate
    from detectron2.utils.registry import locate

    from align_detr.engine.run_config import load_config

    if "ALIGN_DETR" not in cfg.MODEL or not cfg.MODEL.ALIGN_DETR.CONFIG:
        raise ConfigError(
            "MODEL.ALIGN_DETR.CONFIG is not set: call align_detr.config.add_align_detr_config(cfg), then name a config "
            "such as 'detr/detr_r50_500ep.py'"
        )
    if cfg.INPUT.FORMAT != "RGB":
        raise ConfigError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT}, but the models here take RGB images: set it to RGB")
    lazy = load_config(cfg.MODEL.ALIGN_DETR.CONFIG, list(cfg.MODEL.ALIGN_DETR.OVERRIDES))
    target = lazy.model["_target_"]
    target = locate(target) if isinstance(target, str) else target
    if not issubclass(detector, target):
        raise ConfigError(
            f"{cfg.MODEL.ALIGN_DETR.CONFIG} describes a {target.__name__}, but MODEL.META_ARCHITECTURE is "
            f"{detector.__name__}: change one of the two"
        )
    return {key: instantiate(value) for key, value in lazy.model.items() if key != "_target_"}
