"""Config names: the known ones, suggestions for unknown ones, and models with weights."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from align_detr import model_zoo
from align_detr.checkpoint.conversion import Release
from align_detr.errors import ConfigError

MODEL_CONFIG = """
from detectron2.config import LazyCall as L
from torch import nn

from ..common.train import train

model = L(nn.Linear)(in_features=2, out_features=3)
"""


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with two families, one shared part and one project."""
    for name, text in {
        "configs/common/train.py": 'train = dict(device="cpu")',
        "configs/detr/detr_r50_500ep.py": MODEL_CONFIG,
        "configs/detr/detr_r101_500ep.py": MODEL_CONFIG,
        "configs/dino/dino_r50_12ep.py": MODEL_CONFIG,
        "projects/TSP/configs/tsp_r50_36ep.py": "from ....configs.common.train import train",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "align_detr").mkdir()
    monkeypatch.setattr(model_zoo, "_PACKAGE", tmp_path / "align_detr")
    monkeypatch.setattr(model_zoo, "PROJECTS", {"tsp": "TSP"})
    return tmp_path


def test_names_are_the_trainable_configs(zoo: Path) -> None:
    expected = [
        "TSP/tsp_r50_36ep.py",
        "detr/detr_r101_500ep.py",
        "detr/detr_r50_500ep.py",
        "dino/dino_r50_12ep.py",
    ]
    assert model_zoo.names() == model_zoo.list() == expected


@pytest.mark.parametrize("suffix", ["", ".py"])
def test_name_with_and_without_suffix(zoo: Path, suffix: str) -> None:
    expected = zoo / "configs" / "detr" / "detr_r50_500ep.py"
    assert model_zoo.config_path(f"detr/detr_r50_500ep{suffix}") == expected


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("detr/detr_r50_50ep.py", "detr/detr_r50_500ep.py"),
        ("detr_r101_500ep", "detr/detr_r101_500ep.py"),  # the folder left out
        ("dino/dino_r50_12epochs", "dino/dino_r50_12ep.py"),
        ("tsp/tsp_r50_36ep.py", "TSP/tsp_r50_36ep.py"),
    ],
)
def test_unknown_name_suggests_the_nearest(zoo: Path, wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=rf"no config named {wrong}: did you mean .*{right}"):
        model_zoo.get_config(wrong)


def test_unknown_name_that_is_like_none(zoo: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config named banana: there are TSP/tsp_r50_36ep\.py, .* lists all 4"):
        model_zoo.config_path("banana")
    for number in range(3, 10):  # 11 names: every third, which makes 4
        (zoo / f"configs/dino/dino_r50_{number}ep.py").write_text(MODEL_CONFIG)
    with pytest.raises(ConfigError, match="lists all 11") as error:
        model_zoo.config_path("banana")
    assert str(error.value).count("ep.py") == 4


def test_project_config_reaches_the_shared_parts(zoo: Path) -> None:
    assert model_zoo.get_config("TSP/tsp_r50_36ep").train.device == "cpu"
    assert model_zoo.get_config("common/train.py").train.device == "cpu"  # not listed, but other configs load it


def test_get_builds_the_model_and_reads_weights(zoo: Path, tmp_path: Path) -> None:
    weights = {"weight": torch.arange(6.0).view(3, 2), "bias": torch.ones(3)}
    for name, content in {"plain.pth": weights, "trainer.pth": {"model": weights, "iteration": 3}}.items():
        torch.save(content, tmp_path / name)
        model = model_zoo.get("detr/detr_r50_500ep", checkpoint=tmp_path / name)
        assert model.training and torch.equal(model(torch.ones(1, 2)), torch.tensor([[2.0, 6.0, 10.0]]))


def test_get_refuses_weights_of_another_model(zoo: Path, tmp_path: Path) -> None:
    torch.save({"model": {"weight": torch.zeros(3, 2)}}, tmp_path / "short.pth")
    with pytest.raises(ConfigError, match=r"does not fit the model of detr/.*short\.pth .*'bias'"):
        model_zoo.get("detr/detr_r50_500ep", checkpoint=tmp_path / "short.pth")
    with pytest.raises(ConfigError, match="no checkpoint .*absent.pth"):
        model_zoo.get("detr/detr_r50_500ep", checkpoint=tmp_path / "absent.pth")


def test_get_reads_official_files_and_arrays(zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Official files (with a Namespace of arguments) and numpy archives are read; weights get this library's names."""
    releases = [Release("theirs", lambda state: "their.weight" in state, _rename)]
    monkeypatch.setattr("align_detr.checkpoint.conversion._RELEASES", releases)
    weights = {"their.weight": torch.arange(6.0).view(3, 2), "their.bias": torch.ones(3)}
    torch.save({"model": weights, "args": Namespace(lr=1e-4)}, tmp_path / "official.pth")
    np.savez(tmp_path / "official.npz", **{key: value.numpy() for key, value in weights.items()})
    for name in ("official.pth", "official.npz"):
        model = model_zoo.get("detr/detr_r50_500ep", checkpoint=tmp_path / name)
        assert torch.equal(model(torch.ones(1, 2)), torch.tensor([[2.0, 6.0, 10.0]]))


def _rename(state: dict, num_classes: int | None) -> dict:
    return {key.removeprefix("their."): value for key, value in state.items()}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("damaged.pth", b"no weights"),
        ("model.onnx", b""),
        ("list.pth", [1.0]),
        ("text.pth", {"weight": "text"}),
        ("other.pth", {"model": {}, "x": Path("x")}),
    ],
)
def test_get_refuses_other_content_in_one_sentence(zoo: Path, tmp_path: Path, name: str, content: object) -> None:
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(ConfigError, match=name) as error:
        model_zoo.get("detr/detr_r50_500ep", checkpoint=tmp_path / name)
    assert "\n" not in str(error.value)
