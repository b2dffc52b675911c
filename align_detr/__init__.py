"""Align-DETR for detectron2: set-prediction detectors and their IoU-aware versions.

Here are the names of everyday use: a detector in three lines (`Detector`), one of an exported file without PyTorch
(`OnnxDetector`), training and evaluation on a data set's folder (`train`, `evaluate`), a copy that predicts faster
(`optimize_for_inference`), configs and models by name (`model_zoo`), the bridge from yacs configs
(`add_align_detr_config`) and the errors. The parts of the models are in `align_detr.modeling`.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

from align_detr import model_zoo
from align_detr.dependency_warnings import ignore_deprecated_script
from align_detr.errors import AlignDetrError, ConfigError, DatasetError, EnvironmentProblem, NonFinitePrediction

if TYPE_CHECKING:
    from align_detr.config import add_align_detr_config
    from align_detr.detector import Detector
    from align_detr.engine.from_folder import evaluate, train
    from align_detr.export.onnx_detector import OnnxDetector
    from align_detr.inference.optimized import optimize_for_inference
else:
    _HOMES = {
        "Detector": "align_detr.detector",
        "OnnxDetector": "align_detr.export.onnx_detector",
        "add_align_detr_config": "align_detr.config",
        "evaluate": "align_detr.engine.from_folder",
        "optimize_for_inference": "align_detr.inference.optimized",
        "train": "align_detr.engine.from_folder",
    }

    def __getattr__(name: str) -> object:
        """Import what needs more than Python at its first use: set-up imports this package before there is a torch."""
        if name in _HOMES:
            with warnings.catch_warnings():
                ignore_deprecated_script()
                return getattr(import_module(_HOMES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "AlignDetrError",
    "ConfigError",
    "DatasetError",
    "Detector",
    "EnvironmentProblem",
    "NonFinitePrediction",
    "OnnxDetector",
    "__version__",
    "add_align_detr_config",
    "evaluate",
    "model_zoo",
    "optimize_for_inference",
    "train",
]
