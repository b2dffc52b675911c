"""A step that breaks: what training says, writes and leaves as it was."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch import nn

from align_detr.cli.main import main
from align_detr.engine.distributed import wrap_ddp
from align_detr.engine.fault_report import read_step
from align_detr.engine.guard import Guard, TrainingDiverged
from align_detr.engine.precision import Precision
from align_detr.engine.trainer import Trainer
from align_detr.errors import ConfigError, NonFinitePrediction
from align_detr.layers.reduce import mean_over_ranks
from align_detr.modeling.events import log_scalar
from support.processes import in_two_processes


def break_model(tiny_run, how: str, steps: str = "(1,)") -> None:
    text = tiny_run.config.read_text().replace("import tiny_detector", "import tiny_detector, broken_detector")
    model = f"model = L(broken_detector.BrokenDetector)(how={how!r}, broken_steps={steps}, num_classes=2)"
    tiny_run.config.write_text(re.sub(r"^model = .*$", model, text, flags=re.MULTILINE))


def weights(path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def test_a_loss_that_is_not_finite_leaves_a_report_and_sound_weights(tiny_run, capsys) -> None:
    """The third step breaks; the report holds the weights after two, as the checkpoint of that iteration does."""
    break_model(tiny_run, "loss", "(2,)")
    assert tiny_run.train("train.max_iter=4", "train.checkpointer.period=2") == 2
    (report,) = tiny_run.output.glob("fault_*.json")
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert "Training diverged at iteration 2: loss_bbox=nan (1 other losses are finite)" in line
    assert f"not finite is that of spoiler (Spoiler, output ()) (see {report}; `align-detr replay {report}`" in line
    content = json.loads(report.read_text())
    assert report.name == "fault_0000002.json" and content["iteration"] == 2
    assert [(x["width"], x["height"], x["objects"]) for x in content["images"]] == [(32, 32, 1)] * 4
    assert all(re.fullmatch(r".*train_\d.png", x["file_name"]) for x in content["images"])
    assert content["losses"]["loss_bbox"] == "nan" and 0 < content["losses"]["loss_class"] < 5
    assert len(content["largest_gradients"]) == 5 and content["largest_gradients"]["bbox_embed.weight"] == "nan"
    saved, before = read_step(report).model, weights(tiny_run.output / "model_0000001.pth")
    assert saved.keys() == before.keys()
    assert all(torch.equal(saved[name], before[name]) and before[name].isfinite().all() for name in before)


def test_replay_prints_the_same_table(tiny_run, capsys, tmp_path) -> None:
    """With the weights before the fault and the model as it was; with a sound model every number is finite."""
    break_model(tiny_run, "loss", "(1,)")
    assert tiny_run.train("train.max_iter=3", "train.eval_period=0") == 2
    (report,) = tiny_run.output.glob("fault_*.json")
    content = json.loads(report.read_text())
    capsys.readouterr()
    assert main(["replay", str(report), "model.broken_steps=[0]"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum("1 image (32x32 with 1 object)  " in line and "train_" in line for line in lines) == 4
    numbers = dict(line.split() for line in lines if line.startswith("  loss_"))
    assert numbers["loss_bbox"] == "nan"
    assert float(numbers["loss_class"]) == pytest.approx(content["losses"]["loss_class"], rel=1e-5)
    assert f"first layer whose output is not finite: {content['first_layer_not_finite']}" in lines
    assert main(["replay", str(report), "model.broken_steps=[]"]) == 0
    assert "nan" not in (out := capsys.readouterr().out) and "not finite: none" in out
    assert main(["replay", str(report), "+model.channels=5"]) == 2
    assert "do not fit the model" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "fault_0000009.json")]) == 2
    assert "There is no" in capsys.readouterr().err
    step = report.with_suffix(".pth")
    torch.save({"batch": [], "model": {}, "random": Path("x"), "accumulate": 1}, step)
    assert main(["replay", str(report)]) == 2
    assert "not a weight" in capsys.readouterr().err


def test_a_step_left_out_is_counted_and_changes_nothing(tiny_run, capsys) -> None:
    """Two steps of five break: the others make the weights of a run without the batches of those two."""
    break_model(tiny_run, "loss", "(1, 2)")
    assert tiny_run.train("train.max_iter=5", "train.on_nonfinite=skip", "train.checkpointer.period=1") == 0
    rows = {row["iteration"]: row for row in tiny_run.metrics() if "lr" in row}
    assert rows[4]["total_loss"] < 5
    assert [rows[i].get("skipped_steps") for i in range(5)] == [None, 1, 2, None, None]
    files = [weights(tiny_run.output / f"model_{i:07d}.pth") for i in (2, 3)]
    assert not all(torch.equal(files[0][name], files[1][name]) for name in files[0])
    assert len(list(tiny_run.output.glob("fault_*.json"))) == 2
    assert capsys.readouterr().out.count("is left out (train.on_nonfinite=skip") == 2
    for index in (3, 4):
        (tiny_run.output / f"model_{index:07d}.pth").unlink()
    (tiny_run.output / "last_checkpoint").write_text("model_0000002.pth")
    break_model(tiny_run, "loss", "(1,)")
    assert tiny_run.train("--resume", "train.max_iter=5", "train.on_nonfinite=skip") == 0
    assert [row["skipped_steps"] for row in tiny_run.metrics() if "skipped_steps" in row] == [1, 2, 3]
    state = torch.load(tiny_run.output / "model_final.pth", weights_only=True)["trainer"]["guard"]
    assert state == {"skipped": 3, "in_a_row": 1, "reports": 3}


def test_no_more_than_the_limit_are_left_out_in_a_row(tiny_run, capsys) -> None:
    """Breaks in a row count, those before a sound step do not."""
    break_model(tiny_run, "gradient", "(0, 1, 3, 4, 5)")
    assert tiny_run.train("train.max_iter=9", "train.on_nonfinite=skip", "train.on_nonfinite_limit=2") == 2
    err = capsys.readouterr().err
    assert "The gradient norm is nan at iteration 5" in err and "2 steps before it are left out." in err


class Twice(nn.Module):
    """loss = weight x, with a batch norm and a drawn number on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.norm = nn.BatchNorm1d(2)

    def forward(self, batch):
        x = torch.stack(batch) * self.weight
        log_scalar("mean", float(x.mean()))
        return {"loss_a": self.norm(x).sum() * torch.rand(()), "loss_b": x.sum()}


def make_trainer(batches, tmp_path, **options) -> Trainer:
    model = Twice()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(folder=tmp_path, **options)
    return Trainer(model=model, data_loader=batches, optimizer=optimizer, precision=Precision(), guard=guard)


GOOD = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0])]
BAD = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, float("inf")])]


def test_the_second_computation_leaves_no_trace(tmp_path) -> None:
    """The numbers drawn after a step that is reported are those of a run that is not examined; it logs nothing."""
    drawn = []
    for folder in (tmp_path, None):
        torch.manual_seed(4)
        trainer = make_trainer([BAD], folder)
        before = {name: value.clone() for name, value in trainer.model.named_parameters()}
        trainer.iter = 0
        with pytest.raises(TrainingDiverged), EventStorage() as trainer.storage:
            trainer.run_step()
        drawn.append(torch.rand(3))
        assert len(trainer.storage.history("mean").values()) == 1
        assert all(torch.equal(before[name], value) for name, value in trainer.model.named_parameters())
    assert torch.equal(*drawn)


def test_a_spoiled_buffer_ends_training_although_steps_are_left_out(tmp_path) -> None:
    """A batch norm that has seen infinity is of no more use."""
    trainer = make_trainer([GOOD, BAD, GOOD], tmp_path, skip=True)
    with pytest.raises(TrainingDiverged, match=r"cannot be left out, as norm\.running_(mean|var) is not finite"):
        trainer.train(0, 3)


def test_a_gradient_that_no_loss_scale_makes_finite_ends_training(tmp_path) -> None:
    """From 4, two steps halve the scale to 1, and a third to 1/2: the fourth is no overflow of float16."""
    trainer = make_trainer([GOOD] * 9, tmp_path)
    trainer.precision.scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    trainer.model.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(TrainingDiverged, match="The gradient norm is nan at iteration 3"):
        trainer.train(0, 9)
    assert torch.equal(trainer.model.weight, torch.ones(2))


def test_a_prediction_that_is_not_finite_is_left_out(tmp_path) -> None:
    trainer = make_trainer([GOOD] * 3, tmp_path, skip=True)
    forward, calls = trainer.model.forward, []

    def refuse_second(batch):
        calls.append(batch)
        if len(calls) in (2, 3):  # the second is computed again
            raise NonFinitePrediction("Query 3 is NaN.")
        return forward(batch)

    trainer.model.forward = refuse_second
    trainer.train(0, 3)
    assert trainer.guard.skipped == 1 and trainer.iter == 3
    content = json.loads((tmp_path / "fault_0000001.json").read_text())
    assert content["error_of_second_pass"] == "Query 3 is NaN." and content["losses"] == {}


def test_a_folder_that_takes_no_report_does_not_hide_the_fault(tmp_path, caplog) -> None:
    (tmp_path / "file").write_text("")
    trainer = make_trainer([BAD], tmp_path / "file")
    with pytest.raises(TrainingDiverged, match="Training diverged at iteration 0"):
        trainer.train(0, 1)
    assert "cannot be written" in caplog.text


def test_a_report_of_another_kind_is_refused(tmp_path) -> None:
    torch.save({"model": {}}, tmp_path / "fault_0000001.pth")
    with pytest.raises(ConfigError, match="is no saved step"):
        read_step(tmp_path / "fault_0000001.json")


def break_on_the_second(rank: int) -> dict:
    """Train with a batch that is not finite in the second of three steps of process 1."""
    torch.manual_seed(0)
    output = Path(os.environ["GUARD_OUTPUT"])
    steps = []
    for skip in (True, False):
        folder = output / ("skip" if skip else "stop")
        batches = [GOOD, BAD if rank == 1 else GOOD, GOOD]
        model = wrap_ddp(Sums(), device="cpu")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = Guard(folder=folder, skip=skip)
        trainer = Trainer(model=model, data_loader=batches, optimizer=optimizer, precision=Precision(), guard=guard)
        try:
            trainer.train(0, 3)
            steps.append([trainer.iter, guard.skipped, float(model.module.weight.detach().sum())])
        except TrainingDiverged as error:
            steps.append([trainer.iter, guard.skipped, str(error)])
    return {"steps": steps}


class Sums(nn.Module):
    """loss = weight x, over a number that all processes share."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, batch):
        count = mean_over_ranks(torch.tensor(float(len(batch))))
        return {"loss_a": (torch.stack(batch) * self.weight).sum() / count}


def test_the_process_with_the_fault_writes_and_all_end_alike(tmp_path, monkeypatch) -> None:
    """The batch that process 1 meets breaks the common gradient; both leave the step out, or stop with its sentence."""
    monkeypatch.setenv("GUARD_OUTPUT", str(tmp_path))
    first, second = (result["steps"] for result in in_two_processes(break_on_the_second, tmp_path))
    assert first == second
    (iterations, skipped, _), (stopped_at, _, sentence) = first
    assert (iterations, skipped, stopped_at) == (3, 1, 1)
    assert "at iteration 1 on process 1: loss_a=inf" in sentence and "fault_0000001_process1.json" in sentence
    for folder in ("skip", "stop"):
        assert [path.name for path in (tmp_path / folder).glob("*.json")] == ["fault_0000001_process1.json"]


@pytest.mark.parametrize(("how", "amp"), [("memory", False), ("host memory", True)])
def test_memory_that_runs_out_names_sizes_and_remedies(tiny_run, capsys, how: str, amp: bool) -> None:
    break_model(tiny_run, how)
    assert tiny_run.train("train.max_iter=3", f"train.amp.enabled={amp}", "train.accumulate=2") == 2
    err = capsys.readouterr().err
    assert "Memory ran out in iteration 0 with 4 images (the largest 32x32 with 1 object, 32x32" in err
    mixed = "" if amp else ", train.amp.enabled=True"
    less = f"train.checkpoint_activations=True, a smaller train.image_size{mixed}"
    expected = f"set train.accumulate=4, {less} or a smaller dataloader.train.total_batch_size."
    assert expected in err


@pytest.mark.parametrize(
    ("mapper", "options", "sentence"),
    [
        ("map_or_die", [], r"A worker process of the loader was killed by SIGKILL while reading \S+train_2\.png: "),
        (
            "map_or_hang",
            ["train.data_timeout=1"],
            r"sent no batch for 1 seconds \(train\.data_timeout\) while reading ",
        ),
    ],
)
@pytest.mark.parametrize("loader", ["train", "test"])
def test_workers_that_die_or_hang(
    tiny_run, capsys, loader: str, mapper: str, options: list[str], sentence: str
) -> None:
    """Those of training and, after it, those of the evaluation."""
    text = tiny_run.config.read_text().replace("import tiny_detector", "import tiny_detector, broken_detector")
    tiny_run.config.write_text(f"{text}\ndataloader[{loader!r}].mapper = broken_detector.{mapper}\n")
    assert tiny_run.train("train.max_iter=1", f"dataloader.{loader}.num_workers=1", *options) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert re.search(sentence.replace("train_2", f"{'train' if loader == 'train' else 'val'}_2"), line)
