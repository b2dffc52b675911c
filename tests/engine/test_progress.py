"""Parts that change in the course of training: what they are told, in a run, a resumed one and a step repeated."""

import json
import re

import pytest
import torch
from torch import nn

from align_detr.cli.main import main
from align_detr.engine import learner
from align_detr.engine.fault_report import read_step
from align_detr.engine.progress import TrainingProgress, progress_told, tell_progress, training_progress
from align_detr.engine.trained import load_trained
from align_detr.lazy_config import load_config


def follow(tiny_run, broken_steps: str = "()") -> None:
    """Give the run a model that follows its progress."""
    text = tiny_run.config.read_text().replace("import tiny_detector", "import tiny_detector, following_detector")
    model = f"model = L(following_detector.FollowingDetector)(broken_steps={broken_steps}, num_classes=2)"
    tiny_run.config.write_text(re.sub(r"^model = .*$", model, text, flags=re.MULTILINE))


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> list[TrainingProgress]:
    """The hooks of the runs of a test."""
    made = []

    def make(models: list[nn.Module], max_iter: int) -> TrainingProgress | None:
        made.append(training_progress(models, max_iter))
        return made[-1]

    monkeypatch.setattr(learner, "training_progress", make)
    return made


def test_a_resumed_run_goes_on_where_it_was(tiny_run, hooks) -> None:
    """It ends with the weights, to the last bit, of a run that is not interrupted; the average follows, too."""
    follow(tiny_run)
    options = ["train.max_iter=6", "train.checkpointer.period=2", "train.eval_period=0", "train.ema.enabled=True"]
    assert tiny_run.train(*options) == 0
    expected = torch.load(tiny_run.output / "model_final.pth", weights_only=True)["model"]
    for name in ("model_final.pth", "model_0000005.pth"):
        (tiny_run.output / name).unlink(missing_ok=True)
    (tiny_run.output / "last_checkpoint").write_text("model_0000003.pth")
    assert tiny_run.train("--resume", *options) == 0
    found = torch.load(tiny_run.output / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    told = [[part.told for part in hook.parts] for hook in hooks]
    assert told[0] == [[i / 6 for i in range(6)]] * 2 and told[1] == [[4 / 6, 5 / 6]] * 2


def test_a_repeated_step_is_as_far(tiny_run, capsys) -> None:
    """A fault report keeps the share, and its replay has the losses of the report."""
    follow(tiny_run, "(2,)")
    assert tiny_run.train("train.max_iter=4", "train.eval_period=0") == 2
    (report,) = tiny_run.output.glob("fault_*.json")
    assert read_step(report).progress == 0.5
    capsys.readouterr()
    assert main(["replay", str(report)]) == 0
    numbers = dict(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  loss_"))
    expected = json.loads(report.read_text())["losses"]["loss_class"]
    assert float(numbers["loss_class"]) == pytest.approx(expected, rel=1e-5)


def test_a_trained_model_is_as_at_the_end(tiny_run) -> None:
    follow(tiny_run)
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    model, _ = load_trained(load_config(str(tiny_run.config)))
    assert progress_told(model) == 1.0


def test_a_model_that_does_not_change() -> None:
    model = nn.Linear(2, 2)
    tell_progress(model, 0.5)
    assert training_progress([model], 10) is None and progress_told(model) == 0.0
