"""Weights & Biases and MLflow: calls of their libraries, which stand-ins record."""

import json
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


class NotThere(Exception):
    """Of a run that the library does not know."""


class Recorder(types.ModuleType):
    """A module whose functions record their arguments and return it; as a run it has an id, and `done` iterations."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: Calls = []
        self.id = self.run_id = f"{name}-run"
        self.info = self.exceptions = self
        self.MlflowException = NotThere
        self.offline = False
        self.done = self.starting_step = 0
        self.active: Any = None

    def active_run(self) -> Any:
        return self.active

    def start_run(self, **kwargs: Any) -> "Recorder":
        self.calls.append(("start_run", (), kwargs))
        if kwargs.get("run_id", self.id) != self.id:
            raise NotThere("Run not found.")
        self.active = self
        return self

    def get_metric_history(self, run_id: str, key: str) -> list[Any]:
        return [types.SimpleNamespace(step=step) for step in range(self.done)]

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
        settings = {**settings, "id": None, "resume": None}
        assert library.calls[0] == ("init", (), settings) and names[-1] == "finish"
        assert set(logged[2][0]) == {"bbox/AP-a(b)", "bbox/APl"}
    else:
        assert names[:4] == ["set_tracking_uri", "set_experiment", "start_run", "log_param"] and names[-1] == "end_run"
        assert logged[2] == ({"bbox/AP-a_b_": 2.5}, {"step": 2})


def test_a_run_logs_its_evaluation(library: Recorder, tiny_run: Any) -> None:
    assert tiny_run.train("train.max_iter=2", f"train.loggers=[{library.__name__}]") == 0
    rows = [args[0] for called, args, _ in library.calls if called in ("log", "log_metrics")]
    assert len(rows) == 3 and "total_loss" in rows[0] and "bbox/AP" in rows[2]


def test_a_resumed_run_goes_on_after_its_last_iteration(library: Recorder, tiny_run: Any) -> None:
    """Of four iterations two are there, as after a checkpoint of the first; another run begins a run of its own."""
    loggers = f"train.loggers=[{library.__name__}]"
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0", loggers) == 0
    library.calls.clear()
    library.done = library.starting_step = 2
    library.active = None
    assert tiny_run.train("--resume", "train.max_iter=4", "train.eval_period=0", loggers) == 0
    method = "log" if library.__name__ == "wandb" else "log_metrics"
    steps = [kwargs["step"] for called, _, kwargs in library.calls if called == method]
    assert steps == [2, 3, 4], "two steps, and the evaluation at the end"
    opened = [kwargs for called, _, kwargs in library.calls if called in ("init", "start_run")]
    assert [kwargs.get("id", kwargs.get("run_id")) for kwargs in opened] == [library.id]
    library.calls.clear()
    library.active = None
    assert tiny_run.train("--overwrite", "train.max_iter=1", "train.eval_period=0", loggers) == 0
    opened = [kwargs for called, _, kwargs in library.calls if called in ("init", "start_run")]
    assert [kwargs.get("id", kwargs.get("run_id")) for kwargs in opened] == [None]


def test_what_cannot_be_resumed_begins_anew(
    library: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """MLflow's run that is gone, of which the log speaks; an offline run of Weights & Biases, whose id is not kept."""
    ids = tmp_path / "loggers.json"
    if library.__name__ == "mlflow":
        ids.write_text('{"mlflow": "gone"}')
        LOGGERS["mlflow"](tmp_path, resumed=True)
        assert "MLflow's run gone cannot be resumed (Run not found): a new one begins." in caplog.text
        assert json.loads(ids.read_text()) == {"mlflow": "mlflow-run"}
    else:
        library.offline = True
        LOGGERS["wandb"](tmp_path)
        assert not ids.exists()
        ids.write_text("{")
        LOGGERS["wandb"](tmp_path, resumed=True)
        assert [kwargs["id"] for _, _, kwargs in library.calls] == [None, None]


def test_mlflow_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One run, whose iterations are there once each."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for resumed, iterations in ((False, (0, 1, 2)), (True, (1, 2, 3))):
        writer = LOGGERS["mlflow"](tmp_path, resumed=resumed)
        for iteration in iterations:
            with EventStorage(iteration) as storage:
                storage.put_scalar("total_loss", float(iteration))
                writer.write()
        writer.close()
    (run,) = mlflow.search_runs(experiment_names=["align_detr"], output_format="list")
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "total_loss")
    assert [each.step for each in history] == [0, 1, 2, 3]


def test_wandb_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, each part is a run of its own, which its library can upload: none replaces the other."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for resumed in (False, True):
        writer = LOGGERS["wandb"](tmp_path, resumed=resumed)
        with EventStorage() as storage:
            storage.put_scalar("total_loss", 1.0)
            writer.write()
        writer.close()
    parts = [path.name.rsplit("-", 1)[1] for path in tmp_path.glob("wandb/offline-run-*")]
    assert len(set(parts)) == 2 and not (tmp_path / "loggers.json").exists()


def test_a_library_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'align_detr\[wandb\]'"):
        check_loggers("wandb")


def test_an_unknown_logger() -> None:
    with pytest.raises(ConfigError, match="train.loggers names 'neptune', which is unknown: use some of wandb, mlflow"):
        check_loggers(["neptune"])
    assert check_loggers(None) == []
