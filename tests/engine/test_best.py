"""The best checkpoint and patience."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from detectron2.engine.hooks import PeriodicCheckpointer
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.engine.best import BestCheckpoint, check_best, is_loss, require_metric
from align_detr.engine.hooks import EvaluationHook
from align_detr.engine.precision import Precision
from align_detr.engine.run_length import DataSize, RunLength
from align_detr.engine.trainer import Trainer
from align_detr.errors import ConfigError
from align_detr.evaluation import DetectionEvaluator
from align_detr.evaluation.evaluate import EvaluationSet


class Counter(nn.Module):
    """A weight that every step raises by 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        return {"loss": -self.weight.sum()}


def run(folder: Path, values: list[float], *, max_iter: int = 8, start: int = 0, **options: Any) -> Trainer:
    """Train `max_iter` iterations with an evaluation after every second; `values` are what evaluations return."""
    model, rest = Counter(), iter(values)
    trainer = Trainer(
        model=model,
        data_loader=[[0]] * max_iter,
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        precision=Precision(),
        clip_max_norm=0.0,
    )
    checkpointer = Checkpointer(model, str(folder))
    checkpointer.add_checkpointable("trainer", trainer)
    if start:
        checkpointer.load(checkpointer.last_checkpoint())

    def evaluate() -> dict[str, Any]:
        value = next(rest)
        return {"bbox": {"AP": value, "AP50": 1.0}, "val_loss": value}

    evaluation = EvaluationHook(2, evaluate)
    settings = {"metric": "bbox/AP", "patience": None, **options}
    best = BestCheckpoint(evaluation=evaluation, checkpointer=checkpointer, **settings)
    trainer.register_hooks([PeriodicCheckpointer(checkpointer, period=2, max_to_keep=1), evaluation, best])
    trainer.train(start, max_iter)
    return trainer


def saved(folder: Path, name: str) -> tuple[float, int]:
    """Return the weight in a checkpoint and its iteration."""
    state = torch.load(folder / name, weights_only=True)
    return float(state["model"]["weight"]), state["trainer"]["iteration"]


def last(folder: Path) -> str:
    return (folder / "last_checkpoint").read_text()


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path: Path) -> None:
    """Of equal ones the first; the checkpoint to resume from is the last."""
    run(tmp_path, [10.0, 30.0, 30.0, 20.0])
    assert saved(tmp_path, "model_best.pth") == (4.0, 3) and last(tmp_path) == "model_final.pth"
    assert {path.name for path in tmp_path.glob("*.pth")} == {"model_best.pth", "model_0000007.pth", "model_final.pth"}
    assert json.loads((tmp_path / "best.json").read_text())["evaluations"][1] == {"iteration": 4, "value": 30.0}


def test_of_a_validation_loss_the_least_is_best(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Patience counts evaluations that are not below it."""
    with caplog.at_level("INFO"):
        run(tmp_path, [20.0, 10.0, 30.0, 10.0], metric="val_loss", patience=2, max_iter=20)
    assert saved(tmp_path, "model_best.pth") == (4.0, 3)
    assert "val_loss is not below the 10 of iteration 4 in 2 evaluations" in caplog.text
    assert is_loss("day/val_loss_giou") and not is_loss("val_day/bbox/AP")


def test_the_last_evaluation_may_be_the_best(tmp_path: Path) -> None:
    """A result that is no number never is."""
    run(tmp_path, [10.0, math.nan, 20.0, 40.0])
    assert saved(tmp_path, "model_best.pth") == (8.0, 7) and last(tmp_path) == "model_final.pth"


def test_patience_ends_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After two evaluations without a gain, with a final checkpoint and no evaluation of the same weights twice."""
    with caplog.at_level("INFO"):
        trainer = run(tmp_path, [10.0, 30.0, 20.0, 30.0], max_iter=20, patience=2)
    assert trainer.iter == 8 and saved(tmp_path, "model_final.pth") == (8.0, 7)
    assert saved(tmp_path, "model_best.pth") == (4.0, 3) and last(tmp_path) == "model_final.pth"
    assert "bbox/AP is not above the 30 of iteration 4 in 2 evaluations (train.patience)" in caplog.text


def test_a_resumed_run_knows_the_best(tmp_path: Path) -> None:
    """Evaluations up to its start count, also the one after the checkpoint was saved; later ones do not."""

    def fails_at_the_end() -> Iterator[float]:
        yield from (10.0, 30.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, fails_at_the_end(), max_iter=20)
    assert last(tmp_path) == "model_0000005.pth"
    later = json.loads((tmp_path / "best.json").read_text())
    later["evaluations"].append({"iteration": 14, "value": 99.0})
    (tmp_path / "best.json").write_text(json.dumps(later))
    trainer = run(tmp_path, [20.0, 25.0], max_iter=20, start=6, patience=2)
    assert trainer.iter == 10 and saved(tmp_path, "model_best.pth") == (4.0, 3)


@pytest.mark.parametrize("content", ['{"metric": "bbox/AP", "evalu', '{"metric": "bbox/AP"}', "[]"])
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: str) -> None:
    """Training on without it would replace the best checkpoint by a worse one."""
    (tmp_path / "best.json").write_text(content)
    with pytest.raises(ConfigError, match=r"best.json is damaged \(.+\): put a copy back, or remove it"):
        run(tmp_path, [20.0], max_iter=20, start=6)


def test_an_unknown_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="train.best=bbox/APP is no result of the evaluation: use one of bbox/AP, bbo"
    ):
        run(tmp_path, [1.0], metric="bbox/APP")


@pytest.mark.parametrize("by_epochs, kept", [(True, [2, 4]), (False, [4])])
def test_evaluations_of_another_batch_count_as_the_epochs_they_are(
    tmp_path: Path, by_epochs: bool, kept: list[int]
) -> None:
    """Those at iterations 4 and 8, of epochs of 4, are at 2 and 4 of epochs of 2; in a run of iterations they stay."""
    rows = [{"iteration": 4, "value": 50.0}, {"iteration": 8, "value": 20.0}]
    content = {"metric": "bbox/AP", "iterations_per_epoch": 4, "evaluations": rows}
    (tmp_path / "best.json").write_text(json.dumps(content))
    length = RunLength(DataSize([], 0), 2, 2, 8, by_epochs)
    best = BestCheckpoint(
        metric="bbox/AP",
        patience=None,
        evaluation=EvaluationHook(2, dict),
        checkpointer=Checkpointer(Counter(), str(tmp_path)),
        length=length,
    )
    best.trainer = SimpleNamespace(start_iter=4)
    best.before_train()
    assert [each.iteration for each in best.evaluations] == kept
    assert best.best is not None and best.best.value == 50.0


def test_settings_that_make_no_sense() -> None:
    """Patience alone is about AP; without it, an empty text is none."""
    assert check_best(None, 3, 10) == "bbox/AP" and check_best("segm/AP", 3, 10) == "segm/AP"
    assert check_best("bbox/AP50", None, 0) == "bbox/AP50" and check_best("", None, 0) is None
    for patience, period, message in (
        (0, 1, "at least 1"),
        (1.5, 1, "at least 1"),
        (3, 0, "train.eval_period above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_best(None, patience, period)


def evaluated(*names: str) -> list[EvaluationSet]:
    evaluator = SimpleNamespace(result_names=["bbox/AP", "bbox/AP50", "bbox/AP-cat"])
    return [EvaluationSet(name, [], evaluator) for name in names]


def test_a_result_that_no_evaluation_has_is_named_before_training() -> None:
    """With the keys there are: those of several sets have the set's name in front."""
    for metric in ("bbox/AP", "bbox/AP-cat", "val_loss", "val_loss_giou", None):
        require_metric(metric, evaluated("day"))
    require_metric("night/bbox/AP50", evaluated("day", "night"))
    require_metric("night/val_loss", evaluated("day", "night"))
    require_metric("segm/AP", [EvaluationSet("day", [], [SimpleNamespace()])])
    for metric, names, known in (
        ("bbox/APP", ["day"], "use one of bbox/AP, bbox/AP50"),
        ("day/bbox/AP", ["day"], "use one of bbox/AP, bbox/AP50"),
        ("bbox/AP", ["day", "night"], "use one of day/bbox/AP, day/bbox/AP50, night/bbox/AP, night/bbox/AP50"),
        ("val_loss", ["day", "night"], "use one of day/bbox/AP"),
    ):
        with pytest.raises(ConfigError, match=f"train.best={metric} is no result of the evaluation: {known}"):
            require_metric(metric, evaluated(*names))
    with pytest.raises(ConfigError, match="the test data have no annotations"):
        require_metric("bbox/AP", [EvaluationSet("day", [], SimpleNamespace(result_names=[]))])


def test_a_mistyped_result_ends_a_run_before_its_first_step(tiny_run, capsys) -> None:
    """Its names are those that the evaluation has in the end, class by class."""
    assert tiny_run.train("train.best=bbox/APx", "train.max_iter=2") == 2
    assert "use one of bbox/AP, bbox/AP50" in capsys.readouterr().err
    assert not (tiny_run.output / "metrics.json").exists()
    assert tiny_run.train("train.max_iter=1", "train.best=bbox/AP-dark") == 0
    known = {key for key in tiny_run.metrics()[-1] if key.startswith("bbox/")}
    assert known == set(DetectionEvaluator(dataset_name="tiny_val").result_names)
