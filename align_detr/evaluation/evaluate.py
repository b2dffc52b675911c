"""Evaluation of a model on a config's test data: one data set or several."""

import copy
import logging
from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import instantiate
from detectron2.evaluation import DatasetEvaluator, inference_on_dataset, print_csv_format
from detectron2.utils import comm
from detectron2.utils.registry import locate
from omegaconf import DictConfig, ListConfig
from torch import nn

from align_detr.data.build import set_timeout
from align_detr.data.mapper import DetrMapper
from align_detr.data.names import dataset_names
from align_detr.errors import ConfigError
from align_detr.layers.reduce import share_buffers
from align_detr.modeling.events import logged_sets
from align_detr.modeling.loss_sums import describe_sums, sums_by_set

logger = logging.getLogger(__name__)

PREFIX = "val_"
VALIDATION_LOSS = f"{PREFIX}loss"


@dataclass(frozen=True)
class EvaluationSet:
    """A test set by name: batches with a length, and the evaluator (or evaluators) of what a model finds in them."""

    name: str
    loader: Iterable[Any]
    evaluator: DatasetEvaluator | MutableSequence[DatasetEvaluator]

    def forget(self) -> None:
        """Release the detections, which would take memory until the next evaluation."""
        for evaluator in self.evaluator if isinstance(self.evaluator, MutableSequence) else [self.evaluator]:
            evaluator.reset()


def require_evaluation(loaders: DictConfig) -> None:
    """Raise ConfigError unless `loaders`, the node `dataloader` of a config, has test data and an evaluator."""
    if name := missing_evaluation(loaders):
        raise ConfigError(f"The config has no dataloader.{name}, which evaluation needs: add it.")


def missing_evaluation(loaders: DictConfig) -> str | None:
    """Return the key, "test" or "evaluator", for lack of which nothing can be evaluated, or None if both are there."""
    return next((name for name in ("test", "evaluator") if loaders.get(name, None) is None), None)


def build_evaluation_sets(loaders: DictConfig, *, boxes: bool = False, timeout: float = 0) -> list[EvaluationSet]:
    """Build loader and evaluator of each data set of `loaders.test`, which reads them; once for a whole run.

    `loaders.test` is a loader, or a list of them; a loader of ours that names several data sets is one per name.
    `loaders.evaluator` is for each of them; where there are several, with `dataset_name` set to the data set and a
    folder of that name in its `output_dir`. Or it is a list with an evaluator per loader. With `boxes`, the
    inputs of a DetrMapper have their boxes, for a loss. `timeout` is that of `set_timeout`. Raise ConfigError for nodes
    that do not fit each other, DatasetError for data that cannot be used.
    """
    require_evaluation(loaders)
    tests = _one_loader_per_set(loaders.test)
    evaluators = _one_evaluator_per_set(loaders, tests)
    names = [", ".join(dataset_names(test)) or f"test set {k}" for k, test in enumerate(tests)]
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ConfigError(f"dataloader.test names the data set '{repeated[0]}' more than once: name it once.")
    if boxes:
        tests = [_with_boxes(test) for test in tests]
    sets = [
        EvaluationSet(name, instantiate(test), instantiate(evaluator))
        for name, test, evaluator in zip(names, tests, evaluators, strict=True)
    ]
    for one in sets:
        set_timeout(one.loader, timeout)
    return sets


def evaluate_sets(sets: Sequence[EvaluationSet], model: nn.Module) -> Mapping[str, Any]:
    """Run `model` in evaluation mode, in float32, over each set; return the metrics of its evaluator.

    Return {task: {metric: value}}, e.g. {"bbox": {"AP": ...}}, or {name: that} for several sets, on the main process
    and {} on others and without sets. All processes must call it: they share the images, and take over the buffers of
    the main process. The model's training mode is restored.
    """
    share_buffers(model)
    results = {}
    for one in sets:
        results[one.name] = inference_on_dataset(model, one.loader, one.evaluator)
        one.forget()
        if comm.is_main_process():
            logger.info("Results on %s:", one.name)
            print_csv_format({task: each for task, each in results[one.name].items() if isinstance(each, Mapping)})
            _print_loss(results[one.name])
    if not (sets and comm.is_main_process()):
        return {}
    return results if len(sets) > 1 else results[sets[0].name]


def evaluate(loaders: DictConfig, model: nn.Module) -> Mapping[str, Any]:
    """Evaluate `model` as `evaluate_sets` does on what `build_evaluation_sets` makes of a config's `dataloader`."""
    return evaluate_sets(build_evaluation_sets(loaders), model)


def _print_loss(results: Mapping[str, Any]) -> None:
    """Log the validation loss, if there is one, and its sums per set."""
    if VALIDATION_LOSS in results:
        losses = {key.removeprefix(PREFIX): value for key, value in results.items() if key.startswith(f"{PREFIX}loss_")}
        sums = sums_by_set(losses, logged_sets())
        logger.info("Validation loss: %s", describe_sums(sums, results[VALIDATION_LOSS]))


def _one_loader_per_set(test: DictConfig | ListConfig) -> list[DictConfig]:
    """Return a loader's node for each test set. Raise ConfigError if there is none."""
    tests = [one for node in (test if isinstance(test, ListConfig) else [test]) for one in _split(node)]
    if not tests:
        raise ConfigError("dataloader.test names no data set: set dataloader.test.dataset.")
    return tests


def _split(loader: DictConfig) -> list[DictConfig]:
    """Return copies of a loader that names several data sets, one per name."""
    names = loader.get("dataset", None)
    return [_with(loader, dataset=name) for name in names] if isinstance(names, ListConfig) else [loader]


def _with_boxes(loader: DictConfig) -> DictConfig:
    """Return a copy of a loader whose mapper keeps boxes, if it is one of ours."""
    mapper = loader.get("mapper", None)
    target = mapper.get("_target_", None) if isinstance(mapper, DictConfig) else None
    target = locate(target) if isinstance(target, str) else target
    if not (isinstance(target, type) and issubclass(target, DetrMapper)):
        return loader
    changed = copy.deepcopy(loader)
    changed.mapper.keep_boxes = True
    return changed


def _one_evaluator_per_set(loaders: DictConfig, tests: Sequence[DictConfig]) -> Sequence[DictConfig | ListConfig]:
    """Return an evaluator's node, or detectron2's list of them for one loader, for each loader."""
    evaluator, several = loaders.evaluator, len(tests) > 1
    if isinstance(evaluator, ListConfig):
        if several and len(evaluator) != len(tests):
            raise ConfigError(
                f"dataloader.evaluator lists {len(evaluator)} evaluators, but dataloader.test has {len(tests)} data "
                "sets: list one evaluator per data set, or give one for all."
            )
        return list(evaluator) if several else [evaluator]
    if tests[0] is loaders.test:
        return [evaluator]
    named = [_for_set(evaluator, dataset_names(test)) for test in tests]
    return [_in_folder(one, dataset_names(test)) for one, test in zip(named, tests, strict=True)] if several else named


def _for_set(evaluator: DictConfig, names: Sequence[str]) -> DictConfig:
    """Return the evaluator with the name of a loader's data set, if it takes one."""
    return _with(evaluator, dataset_name=names[0]) if "dataset_name" in evaluator and len(names) == 1 else evaluator


def _in_folder(evaluator: DictConfig, names: Sequence[str]) -> DictConfig:
    """Return the evaluator with a folder of the data set's name in its results folder, if it has one."""
    folder = evaluator.get("output_dir", None)
    return _with(evaluator, output_dir=str(Path(folder, *names))) if folder else evaluator


def _with(node: DictConfig, **values: Any) -> DictConfig:
    """Return a copy of a node at the same place of the config, where its interpolations hold, with these values."""
    changed = copy.deepcopy(node)
    for key, value in values.items():
        changed[key] = value
    return changed
