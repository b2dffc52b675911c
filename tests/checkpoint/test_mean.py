"""`align-detr weights mean`: the mean of checkpoints, and files that have none."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_floats_of_eight_bits(kind: torch.dtype, tmp_path: Path) -> None:
    """Of 1 and 4, and of 2 and 6; numpy has none of 8 bits, and gets float32."""
    both = [{"model": {"weight": torch.tensor(values).to(kind)}} for values in ((1.0, 2.0), (4.0, 6.0))]
    _, out = mean(tmp_path, *both)
    found = read_weights(out).state["weight"]
    assert found.dtype == kind and found.float().tolist() == [2.5, 4]
    files = [str(tmp_path / f"{number}.pth") for number in range(2)]
    assert main(["weights", "mean", *files, "--out", str(tmp_path / "out.npz")]) == 0
    assert read_weights(tmp_path / "out.npz").state["weight"].tolist() == [2.5, 4]


@pytest.mark.skipif(not hasattr(torch, "float4_e2m1fn_x2"), reason="PyTorch has floats of 4 bits from 2.8 on")
def test_floats_of_four_bits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    four = {"model": {"weight": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}}
    assert mean(tmp_path, four, four)[0] == 2
    assert "'weight' as float4_e2m1fn_x2, which has no mean: save wider floats." in capsys.readouterr().err


@pytest.mark.parametrize("state", [{}, {"batches": torch.tensor(3)}])
def test_files_without_floats(state: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out = mean(tmp_path, {"model": state}, {"model": state})
    assert status == 2 and not out.exists()
    assert "0.pth holds no floats, which alone have a mean: take checkpoints of a training." in capsys.readouterr().err


def test_a_file_named_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the same path, and by a link to it."""
    file, link = tmp_path / "a.pth", tmp_path / "b.pth"
    torch.save(content(1.0), file)
    link.symlink_to(file)
    for second, again in ((file, "again"), (link, f"again, as {link}")):
        assert main(["weights", "mean", str(file), str(second), "--out", str(tmp_path / "out.pth")]) == 2
        sentence = f"{file} is named {again}, and a mean counts each file once: name it once."
        assert sentence in capsys.readouterr().err and not (tmp_path / "out.pth").exists()


def test_files_matched_by_similarity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean would lack the mark by which a file's names are matched."""
    files = [tmp_path / "a.pkl", tmp_path / "b.pkl"]
    for file in files:
        state = {"conv1.weight": np.ones((2, 2), np.float32)}
        file.write_bytes(pickle.dumps({"model": state, "__author__": "x", "matching_heuristics": True}))
    assert main(["weights", "mean", *map(str, files), "--out", str(tmp_path / "out.pth")]) == 2
    assert f"{files[0]} has names that are matched with a model's by similarity" in capsys.readouterr().err
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize(
    "command", [("mean", "no.pth", "none.pth", "--out"), ("convert", "no.pth")], ids=["mean", "convert"]
)
def test_the_new_file_is_checked_first(
    command: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a file is read: those named here are missing, which is not what the sentence says."""
    (tmp_path / "old.pth").touch()
    for name, sentence in (("old.pth", "exists already"), ("a.bin", "ends in neither"), ("no/a.pth", "does not exist")):
        assert main(["weights", *command, str(tmp_path / name)]) == 2
        assert sentence in capsys.readouterr().err


def test_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert mean(tmp_path, content(1.0))[0] == 2
    assert "A mean needs at least two files of weights, and 1 is given: name several." in capsys.readouterr().err
