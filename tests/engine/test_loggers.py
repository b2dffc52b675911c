"""Weights & Biases and MLflow: calls of their libraries, which stand-ins record."""

import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from detectron2.utils.events import EventStorage

from align_detr.engine.loggers import LOGGERS, check_loggers
from align_detr.engine.writers import MetricsWriter, build_writers
from align_detr.errors import ConfigError, EnvironmentProblem

Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


class Recorder(types.ModuleType):
    """A module whose functions record their arguments and return it."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: Calls = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def record(*args: Any, **kwargs: Any) -> "Recorder":
            self.calls.append((name, args, kwargs))
            return self

        return record


@pytest.fixture(params=LOGGERS)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Recorder:
    module = Recorder(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    for name in ("WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    return module


def test_each_number_once_at_its_iteration(library: Recorder, tmp_path: Path) -> None:
    """The run has the folder's name, and the config or its path. MLflow takes neither NaN nor all signs."""
    name = library.__name__
    (tmp_path / "config.yaml").write_text(
        "train: {seed: 3}\nmapper: !!python/name:tiny.map ''\nsize: !!python/tuple [1, 2]\n"
    )
    assert check_loggers([name]) == [name]
    metrics = MetricsWriter(tmp_path / "metrics.json")
    writers = build_writers(
        metrics=metrics, output_dir=str(tmp_path), max_iter=2, iterations_per_epoch=1, device="cpu", loggers=[name]
    )
    with EventStorage() as storage:
        for loss in (1.0, 5.0):
            storage.put_scalar("loss", loss)
            writers[2].write()
            writers[2].write()
            storage.step()
        storage.put_scalars(**{"bbox/AP-a(b)": 2.5, "bbox/APl": math.nan}, smoothing_hint=False)
        writers[2].write()
    for writer in writers:
        writer.close()
    method = "log" if name == "wandb" else "log_metrics"
    logged = [(args[0], kwargs) for called, args, kwargs in library.calls if called == method]
    assert logged[:2] == [({"loss": 1.0}, {"step": 0}), ({"loss": 3.0}, {"step": 1})]
    names = [called for called, _, _ in library.calls]
    if name == "wandb":
        config = {"train": {"seed": 3}, "mapper": "name:tiny.map", "size": [1, 2]}
        settings = {"project": "align_detr", "name": tmp_path.name, "dir": str(tmp_path), "config": config}
        assert library.calls[0] == ("init", (), settings) and names[-1] == "finish"
        assert set(logged[2][0]) == {"bbox/AP-a(b)", "bbox/APl"}
    else:
        assert names[:4] == ["set_tracking_uri", "set_experiment", "start_run", "log_param"] and names[-1] == "end_run"
        assert logged[2] == ({"bbox/AP-a_b_": 2.5}, {"step": 2})


def test_a_run_logs_its_evaluation(library: Recorder, tiny_run: Any) -> None:
    assert tiny_run.train("train.max_iter=2", f"train.loggers=[{library.__name__}]") == 0
    rows = [args[0] for called, args, _ in library.calls if called in ("log", "log_metrics")]
    assert len(rows) == 3 and "total_loss" in rows[0] and "bbox/AP" in rows[2]


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'align_detr\[wandb\]'"):
        check_loggers("wandb")


def test_an_unknown_logger() -> None:
    with pytest.raises(ConfigError, match="train.loggers names 'neptune', which is unknown: use some of wandb, mlflow"):
        check_loggers(["neptune"])
    assert check_loggers(None) == []
