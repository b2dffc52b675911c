"""What a run is going to do, as its config and its data say, before anything is built."""

import logging
from dataclasses import dataclass

from detectron2.utils import comm
from omegaconf import DictConfig

from align_detr.engine.best import check_best, require_metric
from align_detr.engine.loggers import check_loggers
from align_detr.engine.precision import Precision
from align_detr.engine.run_length import DataSize, RunLength, read_data, resolve_length
from align_detr.evaluation import EvaluationSet, build_evaluation_sets, missing_evaluation
from align_detr.option_values import check_training
from align_detr.overrides import unread_keys

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunPlan:
    """Precision, length, test data ([]: nothing is evaluated) and the metric of the best checkpoint (None: none)."""

    precision: Precision
    length: RunLength
    test_data: DataSize
    test_sets: list[EvaluationSet]
    best_metric: str | None

    @property
    def dataset_names(self) -> list[str]:
        """Names of the training data and of the test data."""
        return [*self.length.data.names, *self.test_data.names]


def plan_run(cfg: DictConfig) -> RunPlan:
    """Return the plan of a run; fill in the options that follow from the data, and warn of keys that nothing reads.

    Raise AlignDetrError for what is wrong with config and data: also for test data that evaluation cannot use, which
    otherwise would end training after an epoch.
    """
    options, loaders = cfg.train, cfg.dataloader
    if unread := unread_keys(options):
        logger.warning("Nothing reads %s of the config: remove or correct the keys.", ", ".join(unread))
    precision = Precision(enabled=options.amp.enabled, dtype=options.amp.dtype, device=options.device)
    check_training(cfg)
    missing = missing_evaluation(loaders)
    if missing:
        logger.warning("Nothing is evaluated, as the config has no dataloader.%s.", missing)
    length = resolve_length(options, loaders.train, comm.get_world_size())
    best_metric = check_best(
        options.best,
        options.patience,
        options.eval_period,
        validation_loss=options.validation_loss,
        evaluated=not missing,
    )
    check_loggers(options.loggers)
    test_data = read_data(loaders.get("test"))
    test_sets = (
        [] if missing else build_evaluation_sets(loaders, boxes=options.validation_loss, timeout=options.data_timeout)
    )
    require_metric(best_metric, test_sets)
    return RunPlan(precision, length, test_data, test_sets, best_metric)
