"""Resumed runs: what the log announces is what is used, and epochs stay epochs."""

import pytest
import torch
from detectron2.config import LazyConfig

from align_detr.checkpoint.contents import read_weights


def group(output, name="model_final.pth"):
    """Return the options of the first group of a checkpoint's optimizer, and the trainer's iteration."""
    trainer = torch.load(output / name, weights_only=True)["trainer"]
    return trainer["optimizer"]["param_groups"][0], trainer["iteration"]


SHORT = ["train.eval_period=0", "lr_multiplier.values=[1,1]"]


def test_the_announced_rate_and_decay_are_used(tiny_run, capsys):
    """Those of the command line, with the moments of the checkpoint."""
    assert tiny_run.train("train.epochs=1", *SHORT) == 0
    options = ["optimizer.lr=0.02", "optimizer.weight_decay=0.5", "optimizer.betas=[0.8,0.9]"]
    assert tiny_run.train("--resume", "train.epochs=2", *options, *SHORT) == 0
    rates = capsys.readouterr().out.rpartition("Learning rates: ")[2].splitlines()[0]
    assert rates == "backbone 0.002, base 0.02 (not scaled: the batch is that of the config)"
    rows = [row for row in tiny_run.metrics() if "lr_base" in row]
    assert [row["lr_base"] for row in rows] == pytest.approx([0.01, 0.01, 0.02, 0.02])
    used, iteration = group(tiny_run.output)
    assert (used["weight_decay"], tuple(used["betas"]), iteration) == (0.5, (0.8, 0.9), 3)
    state = torch.load(tiny_run.output / "model_final.pth", weights_only=True)["trainer"]["optimizer"]["state"]
    assert state[0]["step"] == 4


def test_another_batch_keeps_the_epochs(tiny_run, capsys):
    """Two of three epochs at batch 2 are 8 iterations; at batch 4 they are 4 of 6, and the third epoch is trained."""
    assert tiny_run.train("train.epochs=2", "dataloader.train.total_batch_size=2", *SHORT) == 0
    capsys.readouterr()
    assert tiny_run.train("--resume", "train.epochs=3", *SHORT) == 0
    out = capsys.readouterr().out
    assert "An epoch had 4 iterations when the checkpoint was saved, and has 2 now" in out
    assert "Resuming at iteration 4 of 6." in out and group(tiny_run.output)[1] == 5


@pytest.mark.parametrize("before, after", [(2, 4), (4, 2)])
def test_another_batch_keeps_the_lines_of_metrics(tiny_run, before: int, after: int):
    """Each step has its line, those before at what they count as now, in order; also after a further resumption."""
    batch = "dataloader.train.total_batch_size"
    period = ["train.checkpointer.period=1", "train.eval_period=0"]
    assert tiny_run.train("train.epochs=2", f"{batch}={before}", *period) == 0
    assert tiny_run.train("--resume", "train.epochs=3", f"{batch}={after}", *period) == 0
    assert [row["iteration"] for row in tiny_run.metrics() if "bbox/AP" in row] == [2 * 8 // after - 1, 3 * 8 // after]

    def steps() -> list[int]:
        return [row["iteration"] for row in tiny_run.metrics() if "total_loss" in row]

    new = 3 * 8 // after
    old = [max(0, round((i + 1) * before / after) - 1) for i in range(2 * 8 // before)]
    assert steps() == [*old, *range(2 * 8 // after, new)]
    assert tiny_run.train("--resume", "train.epochs=4", f"{batch}={after}", *period) == 0
    assert steps() == [*old, *range(2 * 8 // after, 4 * 8 // after)]


def test_another_batch_keeps_the_epochs_of_a_saved_config(tiny_run, capsys):
    """The config.yaml of the run, and the config in its weights, have no numbers that follow from the data."""
    assert tiny_run.train("train.epochs=2", "train.eval_epochs=0.5", "dataloader.train.total_batch_size=4") == 0
    tiny_run.config = tiny_run.output / "config.yaml"
    saved = tiny_run.config.read_text().replace(str(tiny_run.output), "./output/output")  # no path of this machine
    assert read_weights(tiny_run.output / "weights.pth").config == saved
    options = LazyConfig.load(str(tiny_run.config)).train
    assert (options.epochs, options.max_iter, options.checkpointer.period) == (2, None, None)
    assert (options.eval_epochs, options.eval_period) == (0.5, None)
    capsys.readouterr()
    assert tiny_run.train("--resume", "train.epochs=3", "dataloader.train.total_batch_size=2") == 0
    assert "Resuming at iteration 8 of 12." in capsys.readouterr().out


def test_more_iterations_than_the_config_asks_for(tiny_run, capsys):
    """Are an error; exactly as many are evaluated again, as a finished job that a scheduler starts once more."""
    assert tiny_run.train("train.max_iter=3", *SHORT) == 0
    capsys.readouterr()
    assert tiny_run.train("--resume", "train.max_iter=2", *SHORT) == 2
    message = (
        "Nothing is left to train: the checkpoint is at iteration 3, and the config asks for 2: raise train.max_iter"
    )
    assert message in capsys.readouterr().err
    assert tiny_run.train("--resume", "train.max_iter=3", *SHORT) == 0
    assert "Nothing is left to train of 3 iterations" in capsys.readouterr().out
    assert [row["iteration"] for row in tiny_run.metrics()] == [0, 1, 2, 3] and "bbox/AP" in tiny_run.metrics()[-1]


def test_a_run_that_patience_has_ended_stays_ended(tiny_run, capsys):
    """With more patience it trains on; its lines are those of a run that had as much from the beginning."""
    best = ["train.max_iter=8", "train.eval_period=2", "optimizer.lr=0", "train.best=bbox/AP"]
    assert tiny_run.train(*best, "train.patience=1") == 0
    lines, final = tiny_run.metrics(), (tiny_run.output / "model_final.pth").stat().st_mtime_ns
    assert tiny_run.train("--resume", *best, "train.patience=1") == 0
    assert [row["iteration"] for row in tiny_run.metrics()] == [0, 1, 2, 3]
    assert tiny_run.metrics()[3]["bbox/AP"] == lines[3]["bbox/AP"]
    assert (tiny_run.output / "model_final.pth").stat().st_mtime_ns > final
    assert tiny_run.train("--resume", *best, "train.patience=2") == 0
    assert [row["iteration"] for row in tiny_run.metrics()] == [0, 1, 2, 3, 4, 5]


def test_a_damaged_last_checkpoint_is_one_sentence(tiny_run, capsys):
    assert tiny_run.train("train.max_iter=1", *SHORT) == 0
    (tiny_run.output / "last_checkpoint").write_bytes(b"\xff")
    assert tiny_run.train("--resume", "train.max_iter=2", *SHORT) == 2
    assert f"error: {tiny_run.output / 'last_checkpoint'} is damaged" in capsys.readouterr().err
