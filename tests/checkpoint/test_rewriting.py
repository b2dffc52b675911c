"""`align-detr weights`: what a file is said to hold, and files written under our names."""

import builtins
import importlib.util
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from align_detr.checkpoint import rewriting
from align_detr.checkpoint.contents import read_weights
from align_detr.cli.main import main
from align_detr.modeling.backbone import MobileNetV2
from support.detectors import tiny_detr

CONFIG = """
from detectron2.config import LazyCall as L
from support.detectors import tiny_detr
from align_detr.model_zoo import get_config

_parent = get_config("detr/detr_r50_500ep.py")
dataloader, train = _parent["dataloader"], _parent["train"]
optimizer, lr_multiplier = _parent["optimizer"], _parent["lr_multiplier"]
model = L(tiny_detr)(num_classes={classes})
"""


def official(rows: int = 92) -> dict[str, Tensor]:
    """Return a state dict with the names that DETR's authors give to a classifier, a norm and a query table."""
    return {
        "transformer.decoder.layers.0.multihead_attn.in_proj_weight": torch.randn(12, 4),
        "transformer.decoder.norm.weight": torch.randn(4),
        "query_embed.weight": torch.randn(5, 4),
        "class_embed.weight": torch.arange(rows).float()[:, None].expand(rows, 4),
        "class_embed.bias": torch.arange(rows).float(),
    }


@pytest.mark.parametrize("ending", [".pth", ".npz"])
@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_an_official_file(ending: str, wrapper: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ids 1, 13 and 90 are rows 0, 11 and 79 of COCO's 80 classes, "no object" is the last; the file is read again."""
    state = official()
    torch.save({wrapper: state, "args": Namespace(lr=1)} if wrapper else state, tmp_path / "detr.pth")
    out = tmp_path / f"ours{ending}"
    assert main(["weights", "convert", str(tmp_path / "detr.pth"), str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: 5 tensors{', 80 classes' if ending == '.pth' else ''}\n"
    written = read_weights(out)
    assert written.state["head.class_embed.bias"][[0, 11, 79, 80]].tolist() == [1, 13, 90, 91]
    assert torch.equal(written.state["queries.position.weight"], state["query_embed.weight"])
    assert torch.equal(written.state["decoder.norm.weight"], state["transformer.decoder.norm.weight"])
    if ending == ".pth":
        assert written.class_names is not None and len(written.class_names) == 80
        assert (written.class_names[0], written.class_names[11], written.class_names[79]) == (
            "person",
            "stop sign",
            "toothbrush",
        )
        assert out.stat().st_size < 20_000  # not the 92 rows of which these are a part
    else:
        assert written.class_names is None
    assert list(tmp_path.glob(".*")) == []


def test_against_a_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The report is that of loading; a file that fits has the config in it, one that does not is refused."""
    model = tiny_detr(num_classes=3)
    torch.save({"model": model.state_dict(), "classes": {"names": ["a", "b", "c"]}}, tmp_path / "model.pth")
    for classes in (3, 4):
        (tmp_path / f"{classes}.py").write_text(CONFIG.format(classes=classes))
    command = ["weights", "convert", str(tmp_path / "model.pth"), str(tmp_path / "out.pth"), "--config-file"]
    assert main([*command, str(tmp_path / "4.py")]) == 2 and not (tmp_path / "out.pth").exists()
    assert "has 3 classes instead of 4, or other ones" in capsys.readouterr().err
    assert main([*command, str(tmp_path / "3.py")]) == 0
    tensors = len(model.state_dict())
    assert f"Loaded {tensors} of {tensors} tensors (100 % of the numbers)." in capsys.readouterr().out
    written = read_weights(tmp_path / "out.pth")
    assert written.class_names == ["a", "b", "c"] and "tiny_detr" in str(written.config)
    assert main([*command, str(tmp_path / "3.py")]) == 2
    assert "out.pth exists already: choose another name" in capsys.readouterr().err


def test_a_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It gets its prefix, and no classes or config."""
    state = {key: value.numpy() for key, value in MobileNetV2(out_features=["res5"]).state_dict().items()}
    np.savez(tmp_path / "mobilenet.npz", **state)
    out = tmp_path / "out.pth"
    assert main(["weights", "convert", str(tmp_path / "mobilenet.npz"), str(out)]) == 0
    written = read_weights(out)
    assert set(written.state) == {f"backbone.{key}" for key in state}
    assert written.class_names is None and written.config is None and ", " not in capsys.readouterr().out


def test_what_a_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint with averages, with the plain weights when asked for, and a release."""
    state = {"head.class_embed.bias": torch.zeros(2, dtype=torch.float16), "x": torch.zeros(1000)}
    checkpoint = {
        "model": state,
        "ema": {"model": state, "num_updates": 3},
        "classes": {"names": ["red cell", "platelet"]},
        "config": {"yaml": "model: {}"},
        "iteration": 599,
    }
    torch.save(checkpoint, tmp_path / "model_0000599.pth")
    assert main(["weights", "show", str(tmp_path / "model_0000599.pth")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "origin: a training of this library",
        "tensors: 2 (float16, float32), 1,002 numbers",
        "classes: 2 (red cell, platelet)",
        "weights: moving averages",
        "iterations: 600",
        "config: in the file",
    ]
    main(["weights", "show", str(tmp_path / "model_0000599.pth"), "--plain-weights"])
    assert "weights: not averaged" in capsys.readouterr().out
    torch.save(official(), tmp_path / "detr-r50-e632da11.pth")  # the name of a release, but not its hash
    main(["weights", "show", str(tmp_path / "detr-r50-e632da11.pth")])
    text = capsys.readouterr().out
    assert "origin: DETR, for detr/detr_r50_500ep.py or a config made from it\n" in text
    assert "classes: not named, 92 rows in the classifier" in text and "iterations: not stated" in text
    monkeypatch.setattr(rewriting, "_sha256", lambda path: "e632da11" + "0" * 56)
    main(["weights", "show", str(tmp_path / "detr-r50-e632da11.pth")])
    assert "in the table: detr-r50\n" in capsys.readouterr().out and "in the table" not in text


@pytest.mark.parametrize(
    ("out", "says"), [("a.onnx", "ends in neither .pth nor .npz"), ("no/a.pth", "no does not exist: create it first")]
)
def test_names_that_cannot_be_written(out: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(official(), tmp_path / "a.pth")
    assert main(["weights", "convert", str(tmp_path / "a.pth"), str(tmp_path / out)]) == 2
    assert says in capsys.readouterr().err


def test_safetensors(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read with the package; without it one sentence names the extra."""
    file = tmp_path / "a.safetensors"
    file.write_bytes(b"damaged")
    if importlib.util.find_spec("safetensors") is not None:
        from safetensors.torch import save_file

        assert main(["weights", "show", str(file)]) == 2
        assert "a.safetensors is damaged or not a safetensors file" in capsys.readouterr().err
        save_file({key: value.contiguous() for key, value in official().items()}, file)
        assert main(["weights", "show", str(file)]) == 0 and "origin: DETR" in capsys.readouterr().out

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("safetensors"):
            raise ImportError(name)
        return real(name, *rest)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["weights", "show", str(file)]) == 2
    assert "pip install 'align_detr[safetensors]'" in capsys.readouterr().err
