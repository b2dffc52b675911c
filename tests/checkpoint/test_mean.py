"""`align-detr weights mean`: the mean of checkpoints, and files that have none."""

from pathlib import Path
from typing import Any

import pytest
import torch

from align_detr.checkpoint.contents import read_weights
from align_detr.cli.main import main


def content(*values: float, batches: int = 0, names: tuple[str, ...] = ("cell",), **more: Any) -> dict[str, Any]:
    state = {
        "weight": torch.tensor(values, dtype=torch.float32),
        "half": torch.tensor(values).half(),
        "batches": torch.tensor(batches),
    }
    return {"model": state, "classes": {"names": list(names)}, "config": {"yaml": f"of: {batches}"}, **more}


def mean(folder: Path, *contents: dict[str, Any], options: tuple[str, ...] = ()) -> tuple[int, Path]:
    """Write the files and their mean; return the status and the mean's path."""
    for number, each in enumerate(contents):
        torch.save(each, folder / f"{number}.pth")
    files = [str(folder / f"{number}.pth") for number in range(len(contents))]
    return main(["weights", "mean", *files, "--out", str(folder / "out.pth"), *options]), folder / "out.pth"


def test_mean_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In float32 the sum of 2^24, 1 and 1 is 2^24; the mean is that of 2^24 + 2. The rest is that of the last file."""
    contents = [content(*values, batches=n, iteration=n) for values, n in (((3, -3), 7), ((1, 0), 9), ((2, 6), 8))]
    for each, value in zip(contents, (2.0**24, 1.0, 1.0), strict=True):
        each["model"]["large"] = torch.tensor([value])
    status, out = mean(tmp_path, *contents)
    assert status == 0 and capsys.readouterr().out == f"{out}: 4 tensors, the mean of 3 files\n"
    found = read_weights(out)
    assert found.state["weight"].tolist() == found.state["half"].tolist() == [2, 1]
    assert found.state["large"].double().item() == torch.tensor((2**24 + 2) / 3).item()
    assert found.state["half"].dtype == torch.float16 and found.state["batches"].item() == 8
    assert (found.class_names, found.config, found.iteration) == (["cell"], "of: 8", 9)


def test_averages_or_plain_weights(tmp_path: Path) -> None:
    """Checkpoints with both: by default the mean is of the averages, and says so."""
    both = [content(v) | {"ema": {"num_updates": 1, "model": content(10 * v)["model"]}} for v in (1.0, 2.0)]
    status, out = mean(tmp_path, *both)
    assert status == 0
    found = read_weights(out)
    assert found.averaged and found.state["weight"].tolist() == [15]
    out.unlink()
    mean(tmp_path, *both, options=("--plain-weights",))
    found = read_weights(out)
    assert not found.averaged and found.state["weight"].tolist() == [1.5]


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        (content(1.0, 2.0), "have the tensor 'weight' as (1,) float32 and as (2,) float32: take checkpoints of one"),
        ({"model": {"weight": torch.ones(1)}}, "0.pth has the tensor 'batches', and "),
        (content(1.0, names=("star",)), "have other class names: take checkpoints of one training."),
        (content(1.0, averaged=True), "hold plain weights and moving averages: take files of one kind, or --plain-"),
        (content(float("nan")), "1.pth has numbers in 'weight' that are not finite: leave the file out."),
    ],
)
def test_files_without_a_mean(
    second: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out = mean(tmp_path, content(1.0), second)
    err = capsys.readouterr().err
    assert status == 2 and sentence in err and len(err.splitlines()) == 1 and not out.exists()


def test_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mean(tmp_path, content(1.0))[0] == 2
    assert "A mean needs at least two files of weights, and 1 is given: name several." in capsys.readouterr().err
