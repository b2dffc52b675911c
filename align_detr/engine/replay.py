"""The step of a fault report, computed again."""

from collections.abc import Sequence
from pathlib import Path

from detectron2.utils.events import EventStorage

from align_detr.checkpoint.contents import read_weights
from align_detr.checkpoint.loading import load_weights
from align_detr.engine.build import build_model
from align_detr.engine.distributed import check_device
from align_detr.engine.fault_report import read_step, table
from align_detr.engine.faults import examine
from align_detr.engine.freezing import freeze
from align_detr.engine.precision import Precision
from align_detr.engine.progress import tell_progress
from align_detr.errors import ConfigError
from align_detr.lazy_config import load_config


def replay(
    report: str | Path, *, config_file: str | None = None, weights: str | None = None, overrides: Sequence[str] = ()
) -> list[str]:
    """Compute the batch of a fault report again and return the table of its images, losses, layers and gradients.

    config_file: path or model-zoo name; None: the report's own .yaml, else the config.yaml beside it. weights: a file
    of weights in place of those before the fault. Raise ConfigError for files that are missing or do not fit each
    other. Nothing is written, and the report's files are read without running code from them.
    """
    path = Path(report)
    step = read_step(path)
    beside = path.with_suffix(".yaml")
    if not beside.is_file():
        beside = path.parent / "config.yaml"  # of a report of an earlier version
    if config_file is None and not beside.is_file():
        raise ConfigError(f"There is no {beside}, which training leaves beside its reports: name the --config-file.")
    cfg = load_config(config_file or str(beside), overrides)
    options = cfg.train
    check_device(options.device)
    precision = Precision(enabled=options.amp.enabled, dtype=options.amp.dtype, device=options.device)
    model = build_model(cfg.model, options.device)
    if weights is not None:
        load_weights(model, read_weights(weights, averaged=False), class_names=None, strict=True)
    else:
        try:
            model.load_state_dict(step.model)
        except RuntimeError as error:
            raise ConfigError(
                f"The weights of {path} do not fit the model of {config_file or beside} "
                f"({' '.join(str(error).split())[:200]}): pass the --config-file of the training."
            ) from error
    tell_progress(model, step.progress)
    model.train()
    for norm in freeze(model, options.freeze):
        norm.eval()
    with EventStorage():
        found = examine(model, step.batch, precision=precision, accumulate=step.accumulate, random=step.random)
    return table(step.batch, found)
