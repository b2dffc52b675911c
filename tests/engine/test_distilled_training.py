"""A run with a teacher: it is not in the files, and an interrupted run ends as one that is not."""

import torch

MODEL = """
from support.shrink import small_model
model = small_model("TSP/detr_digits_distilled.py", num_classes=2, num_queries=4)
optimizer.lr = 1e-3
train.ema.enabled = True
train.validation_loss = True
"""
SHORT = ["train.max_iter=4", "train.eval_period=0", "train.checkpointer.period=2", "lr_multiplier.values=[1,1]"]


def test_the_teacher_stays_out_of_the_run(tiny_run, capsys) -> None:
    """Neither weights nor averages hold it; a resumed run ends bitwise as the other; evaluation does without it."""
    tiny_run.config.write_text(tiny_run.config.read_text() + MODEL)
    assert tiny_run.train(*SHORT) == 0
    assert "The assignments are those of the teacher" in capsys.readouterr().out
    final, weights = (torch.load(tiny_run.output / x, weights_only=True) for x in ("model_final.pth", "weights.pth"))
    for state in (final["model"], final["ema"]["model"], weights["model"]):
        assert state.keys() == final["model"].keys() and not any("teacher" in name for name in state)
    assert len(final["trainer"]["optimizer"]["state"]) < len(final["model"])  # which has buffers as well
    assert "  teacher: ''" in weights["config"]["yaml"]  # a path of this machine
    assert tiny_run.metrics()[-1]["val_loss"] > 0  # of the averages, with the teacher's assignments

    for name in ("model_final.pth", "weights.pth"):
        (tiny_run.output / name).unlink()
    (tiny_run.output / "last_checkpoint").write_text("model_0000001.pth")
    assert tiny_run.train("--resume", *SHORT) == 0
    again = torch.load(tiny_run.output / "model_final.pth", weights_only=True)
    for one, other in ((final["model"], again["model"]), (final["ema"]["model"], again["ema"]["model"])):
        assert all(torch.equal(value, other[name]) for name, value in one.items())

    assert tiny_run.train("--eval-only", "model.teacher=gone.pth", "train.validation_loss=False") == 0
    assert tiny_run.train("--overwrite", "model.teacher=", *SHORT) == 2
    assert "model.teacher is empty" in capsys.readouterr().err
    assert (tiny_run.output / "model_final.pth").is_file()  # found before anything is removed
