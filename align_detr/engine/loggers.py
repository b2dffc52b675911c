"""Numbers of a run for Weights & Biases and for MLflow, through their own libraries."""

import importlib
import json
import logging
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.utils.events import EventWriter, get_event_storage

from align_detr.checkpoint.files import write_file
from align_detr.errors import ConfigError, EnvironmentProblem

logger = logging.getLogger(__name__)

PROJECT = "align_detr"
IDS_FILE = "loggers.json"
"""Of an output folder: {library: id of its run}."""


class NewNumbers:
    """What an event storage holds of iterations after the `last` that was taken.

    Numbers with a smoothing hint are medians over `window`.
    """

    def __init__(self, window: int = 20, last: int = -1) -> None:
        self.window = window
        self.last = last

    def take(self) -> dict[int, dict[str, float]]:
        """Return {iteration: {name: number}} of the present storage, in order."""
        rows: dict[int, dict[str, float]] = defaultdict(dict)
        for key, (value, iteration) in get_event_storage().latest_with_smoothing_hint(self.window).items():
            if iteration > self.last:
                rows[iteration][key] = value
        self.last = max(rows, default=self.last)
        return dict(sorted(rows.items()))


class WandbWriter(EventWriter):
    """All numbers of a run to Weights & Biases, as a run of the project `WANDB_PROJECT` (by default PROJECT) that has
    the output folder's name and its config. `WANDB_MODE=offline` keeps it on this machine.

    A `resumed` run goes on after its last iteration there. An offline one begins anew: the library cannot join parts.
    """

    def __init__(self, output_dir: str | Path, *, resumed: bool = False) -> None:
        wandb = importlib.import_module("wandb")
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        folder = Path(output_dir)
        known = _read_ids(folder).get("wandb") if resumed else None
        self._run = wandb.init(
            project=project,
            name=folder.resolve().name,
            dir=str(folder),
            config=_config(folder),
            id=known,
            resume="allow" if known else None,
        )
        _keep_id(folder, "wandb", None if self._run.offline else self._run.id)
        self._numbers = NewNumbers(last=self._run.starting_step - 1)

    def write(self) -> None:
        """Log what is new."""
        for iteration, row in self._numbers.take().items():
            self._run.log(row, step=iteration)

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class MLflowWriter(EventWriter):
    """All numbers of a run to MLflow, as a run that has the output folder's name, and its path as a parameter.

    Without `MLFLOW_TRACKING_URI` they stay in the output folder, in `mlflow.db`. The experiment is
    `MLFLOW_EXPERIMENT_NAME`, by default PROJECT. A `resumed` run goes on after its last iteration there.
    """

    def __init__(self, output_dir: str | Path, *, resumed: bool = False) -> None:
        self._mlflow = importlib.import_module("mlflow")
        folder = Path(output_dir).resolve()
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self._mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        self._mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        known = _read_ids(folder).get("mlflow") if resumed else None
        self._numbers = NewNumbers(last=self._go_on(known) if known else -1)
        if self._mlflow.active_run() is None:
            _keep_id(folder, "mlflow", self._mlflow.start_run(run_name=folder.name).info.run_id)
            self._mlflow.log_param("output_dir", str(folder))

    def _go_on(self, run_id: str) -> int:
        """Open a run that is there and return its last iteration, or open none and return -1."""
        try:
            self._mlflow.start_run(run_id=run_id)
        except self._mlflow.exceptions.MlflowException as error:
            logger.warning("MLflow's run %s cannot be resumed (%s): a new one begins.", run_id, str(error).rstrip("."))
            return -1
        history = self._mlflow.MlflowClient().get_metric_history(run_id, "total_loss")
        return max((each.step for each in history), default=-1)

    def write(self) -> None:
        """Log what is new and finite, by names without the signs that MLflow refuses."""
        for iteration, row in self._numbers.take().items():
            finite = {re.sub(r"[^\w\-. /]", "_", key): value for key, value in row.items() if math.isfinite(value)}
            self._mlflow.log_metrics(finite, step=iteration)

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


LOGGERS: dict[str, Callable[..., EventWriter]] = {"wandb": WandbWriter, "mlflow": MLflowWriter}


def check_loggers(names: str | Sequence[str] | None) -> list[str]:
    """Return the names of `train.loggers`; raise ConfigError for an unknown one, EnvironmentProblem for one whose
    library is not installed.
    """
    names = [names] if isinstance(names, str) else names or []
    if not isinstance(names, Sequence):
        raise ConfigError(f"train.loggers is {names!r}, but must be a list: set it to some of {', '.join(LOGGERS)}.")
    for name in names:
        if name not in LOGGERS:
            raise ConfigError(f"train.loggers names '{name}', which is unknown: use some of {', '.join(LOGGERS)}.")
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise EnvironmentProblem(
                f"train.loggers names {name}, which cannot be imported ({error}): `pip install 'align_detr[{name}]'`, "
                "or remove the name."
            ) from error
    return list(names)


def _read_ids(folder: Path) -> dict[str, str]:
    """Return the ids of the libraries' runs; a file that cannot be read names none."""
    try:
        return dict(json.loads((folder / IDS_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _keep_id(folder: Path, library: str, run_id: str | None) -> None:
    """Write the id of a library's run for a resumption, or forget an earlier one."""
    ids = {**_read_ids(folder), library: run_id}
    kept = {name: each for name, each in ids.items() if each is not None}
    if kept != _read_ids(folder):
        write_file(folder / IDS_FILE, lambda file: file.write(json.dumps(kept, indent=1).encode() + b"\n"))


def _config(folder: Path) -> Any:
    """Return the run's config, with the names of Python's objects as texts."""
    path = folder / "config.yaml"
    return yaml.load(path.read_text(encoding="utf-8"), _PlainLoader) if path.is_file() else {}  # safe: see its base


class _PlainLoader(yaml.SafeLoader):
    """YAML without objects: of a tag such as python/name:x.y, the value is "name:x.y" or the list or map behind it."""

    def plain(self, suffix: str, node: yaml.Node) -> Any:
        """Return what stands for a node with a tag of Python."""
        if isinstance(node, yaml.SequenceNode):
            return self.construct_sequence(node, deep=True)
        return self.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else suffix


_PlainLoader.add_multi_constructor("tag:yaml.org,2002:python/", _PlainLoader.plain)
