"""Runs on a GPU: every precision, float16 with loss scaling, and resuming of its state."""

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

CUDA = ["train.device=cuda", "train.eval_period=0", "train.ema.enabled=True"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_train_resume_and_evaluate(tiny_run, dtype):
    amp = [] if dtype == "float32" else ["train.amp.enabled=True", f"train.amp.dtype={dtype}"]
    assert tiny_run.train(*CUDA, *amp) == 0
    scaler = torch.load(tiny_run.output / "model_final.pth", weights_only=True)["trainer"]["grad_scaler"]
    assert bool(scaler) == (dtype == "float16")
    (tiny_run.output / "last_checkpoint").write_text("model_0000003.pth")
    assert tiny_run.train("--resume", *CUDA, *amp) == 0
    assert [row["iteration"] for row in tiny_run.metrics()][7:] == [4, 5, 6]
    assert tiny_run.train("--eval-only", *CUDA) == 0
    assert tiny_run.metrics()[-1]["bbox/AP"] == tiny_run.metrics()[-2]["bbox/AP"]


def test_first_losses_equal_those_of_the_cpu(tiny_run):
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    assert tiny_run.train("train.max_iter=1", f"train.output_dir={tiny_run.output}_cuda", *CUDA) == 0
    on_cuda = tiny_run.metrics(tiny_run.output.with_name("output_cuda"))[0]
    assert on_cuda["total_loss"] == pytest.approx(tiny_run.metrics()[0]["total_loss"], rel=1e-4)
