"""Align-DETR for detectron2: set-prediction detectors and their IoU-aware versions.

Here are the names of everyday use: configs and models by name (`model_zoo`), the bridge from yacs configs
(`add_align_detr_config`) and the errors. The parts of the models are in `align_detr.modeling`.
"""

from typing import TYPE_CHECKING

from align_detr import model_zoo
from align_detr.errors import AlignDetrError, ConfigError, DatasetError, EnvironmentProblem, NonFinitePrediction

if TYPE_CHECKING:
    from align_detr.config import add_align_detr_config
else:

    def __getattr__(name: str) -> object:
        """Import `add_align_detr_config` at its first use: set-up imports this package before there is a torch."""
        if name == "add_align_detr_config":
            from align_detr.config import add_align_detr_config

            return add_align_detr_config
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__version__ = "0.1.0"

__all__ = [
    "AlignDetrError",
    "ConfigError",
    "DatasetError",
    "EnvironmentProblem",
    "NonFinitePrediction",
    "__version__",
    "add_align_detr_config",
    "model_zoo",
]
