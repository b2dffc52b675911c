"""Evaluation of a model on a config's test data."""

from collections.abc import Mapping
from typing import Any

from detectron2.config import instantiate
from detectron2.evaluation import inference_on_dataset, print_csv_format
from detectron2.utils import comm
from omegaconf import DictConfig
from torch import nn

from align_detr.errors import ConfigError


def require_evaluation(loaders: DictConfig) -> None:
    """Raise ConfigError unless `loaders`, the node `dataloader` of a config, has test data and an evaluator."""
    for name in ("test", "evaluator"):
        if loaders.get(name, None) is None:
            raise ConfigError(f"The config has no dataloader.{name}, which evaluation needs: add it.")


def evaluate(loaders: DictConfig, model: nn.Module) -> Mapping[str, Any]:
    """Run `model` in evaluation mode, in float32, over `loaders.test`; return the metrics of `loaders.evaluator`.

    Return {task: {metric: value}}, e.g. {"bbox": {"AP": ...}}, on the main process and {} on others. All processes
    must call it: they share the images. The model's training mode is restored. Raise ConfigError without an evaluator.
    """
    require_evaluation(loaders)
    results = inference_on_dataset(model, instantiate(loaders.test), instantiate(loaders.evaluator))
    if comm.is_main_process():
        print_csv_format(results)
    return results
