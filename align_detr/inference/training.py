"""Training and evaluation of a detector on a data set's folder, by way of files that also run by themselves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from align_detr.checkpoint.contents import WEIGHTS_FILE
from align_detr.data.layouts import find
from align_detr.engine import from_folder
from align_detr.engine.data_config import default_length, registered_name

START = "start"  # folder of what a training begins with, in that of its results


def output_folder(data: str | Path, given: str | Path | None, prefix: str = "", **options: Any) -> Path:
    """Return the folder of a run's results: the given one, or one of the data set's name in ./output."""
    if given is not None:
        return Path(given)
    return Path("output") / f"{prefix}{registered_name(find(data, **options))}"


def write_config(cfg: DictConfig, path: Path) -> None:
    """Write a config as YAML, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    LazyConfig.save(cfg, str(path))


def train(
    cfg: DictConfig,
    weights: Path | None,
    *,
    data: str | Path,
    folder: Path,
    epochs: int | None,
    overrides: Sequence[str],
    **options: Any,
) -> Mapping[str, Any]:
    """Train what `cfg` describes, from `weights` if there are any, with results in `folder`; return them.

    epochs: None for the length that `cfg` states, or if it states none for that of the default config.
    """
    run = cfg.copy()
    if weights is not None:
        run.train.init_checkpoint = str(weights.absolute())
    if epochs is not None:
        run.train.update(epochs=epochs, max_iter=None)
    elif run.train.epochs is None and run.train.max_iter is None:
        images = len(find(data, layout=options.get("layout")).split("train").annotations.images)
        for key, value in default_length(run, images).items():
            OmegaConf.update(run, key, value)
    config = folder / START / "config.yaml"
    write_config(run, config)
    where = f"train.output_dir={json.dumps(str(folder))}"
    return from_folder.train(str(config), data=data, overrides=[where, *overrides], **options)


def evaluate(
    cfg: DictConfig, weights: Path, *, data: str | Path, folder: Path, overrides: Sequence[str] = (), **options: Any
) -> Mapping[str, Any]:
    """Evaluate `weights` in what `cfg` describes; write its detections into `folder` and return the results."""
    run = cfg.copy()
    run.train.ema.enabled = False  # these weights are what to evaluate, averages or not
    config = weights.parent / "config.yaml"
    write_config(run, config)
    where = f"train.output_dir={json.dumps(str(folder))}"
    return from_folder.evaluate(weights, data=data, config_file=str(config), overrides=[where, *overrides], **options)


def take_length(cfg: DictConfig, source: DictConfig) -> None:
    """Give a config the length, and the periods of evaluations and checkpoints, of `source`."""
    for key in ("epochs", "max_iter", "eval_period", "eval_epochs", "checkpointer.period"):
        OmegaConf.update(cfg, f"train.{key}", OmegaConf.select(source, f"train.{key}"))


def trained_weights(folder: Path) -> Path:
    """Return the file of a finished run's evaluated weights."""
    alone = folder / WEIGHTS_FILE
    return alone if alone.is_file() else folder / "model_final.pth"
