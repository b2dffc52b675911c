"""The profile of training steps: what the page and the trace hold."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from detectron2.engine import HookBase
from torch import Tensor, nn

from align_detr.cli.train import main
from align_detr.engine.precision import Precision
from align_detr.engine.profiling import PAGE, STEP, TRACE, WARM_UP, Operation, StepProfile, advice, page
from align_detr.engine.trainer import Trainer


class Detector(nn.Module):
    """A model with two parts."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, batch: Sequence[Tensor]) -> dict[str, Tensor]:
        """Return one loss."""
        return {"loss_class": self.head(self.backbone(torch.stack(list(batch)))).sum()}


class Counter(HookBase):
    """The number of hooks of the modules in each step."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def after_step(self) -> None:
        """Count."""
        self.seen.append(sum(len(m._forward_hooks) for m in self.trainer.model.modules()))


def _run(folder: Path, *, steps: int, iterations: int) -> Counter:
    model, counter = Detector(), Counter()
    trainer = Trainer(
        model=model,
        data_loader=[[torch.ones(4)]] * iterations,  # type: ignore[list-item]
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        precision=Precision(),
    )
    trainer.register_hooks([StepProfile(folder=folder, steps=steps, model=model), counter])
    trainer.train(0, iterations)
    return counter


def test_profile_of_a_training(tmp_path: Path) -> None:
    """The page lists every part of the step, of which the sum is the whole, and the trace holds N steps; afterwards
    the model is as before.
    """
    counter = _run(tmp_path, steps=2, iterations=WARM_UP + 4)
    text = (tmp_path / PAGE).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S.*?) \| ([\d.-]+) \| \d+ % \|", text.split("## By operation")[0], re.MULTILINE)
    milliseconds = {name: float(value) for name, value in rows}
    outer = ("data", "forward", "backward", "clip", "metrics", "optimizer", "rest")
    assert list(milliseconds) == [*outer[:2], "— backbone", "— head", *outer[2:]]
    match = re.search(r"A step took ([\d.]+) ms: the mean of 2 steps", text)
    assert match is not None
    assert sum(milliseconds[name] for name in outer) == pytest.approx(float(match[1]), abs=0.5)
    assert "`aten::addmm`" in text
    events = json.loads(gzip.decompress((tmp_path / TRACE).read_bytes()))["traceEvents"]
    assert sum(event.get("name") == "step: whole step" and event.get("ph") == "X" for event in events) == 2
    assert counter.seen == [0] * WARM_UP + [2, 0, 0, 0]


def test_training_that_ends_early(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A training of fewer steps has a page of those that it made, and without any a warning."""
    _run(tmp_path, steps=9, iterations=WARM_UP + 1)
    assert "the mean of 1 steps" in (tmp_path / PAGE).read_text(encoding="utf-8")
    (tmp_path / PAGE).unlink()
    _run(tmp_path, steps=1, iterations=WARM_UP)
    assert "there is no profile" in caplog.text


def test_page_has_shares_and_meanings() -> None:
    """Shares are of the step for parts, and of all operations for operations."""
    parts = {STEP: 200.0, "forward": 100.0, "forward, backbone": 60.0, "backward": 50.0}
    text = page(parts, [Operation("aten::mkldnn_convolution", 30.0, 53), Operation("aten::mm", 10.0, 2.5)], 4)
    assert "| forward | 100.0 | 50 % | the model and its losses |" in text
    assert "| — backbone | 60.0 | 30 % | part of it |" in text
    assert "| rest | 50.0 | 25 % |" in text
    assert "| `aten::mkldnn_convolution` | 30.0 | 75 % | 53 | convolutions: backbone and neck |" in text
    assert any("train.freeze=[backbone]" in line for line in advice(parts))


@pytest.mark.parametrize(
    ("arguments", "sentence"), [(["-1"], "set it to 1 or more"), (["2", "--eval-only"], "leave one")]
)
def test_refused_arguments(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A profile needs training steps."""
    assert main(["--config-file", "quickstart/digits.py", "--profile", *arguments]) == 2
    assert sentence in capsys.readouterr().err
