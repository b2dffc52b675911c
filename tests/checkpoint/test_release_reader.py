"""Published weights load as they are through every loader, not the library's own alone."""

import copy
import logging
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import nn

from align_detr.checkpoint.checkpointer import Checkpointer
from align_detr.engine.ema import ModelEMA
from support.official import official_names, small_detr


def zeroed(num_classes: int = 3) -> nn.Module:
    """Return a tiny DETR whose weights are all 0."""
    model = small_detr(num_classes)
    for p in model.parameters():
        nn.init.zeros_(p)
    return model


def assert_equal(model: nn.Module, source: nn.Module) -> None:
    expected = source.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_official_weights_load_as_they_are(tmp_path: Path) -> None:
    """By PyTorch's function, also under prefixes of wrappers, and by detectron2's checkpointer with its Namespace."""
    source = small_detr()
    official = official_names(source)
    before = dict(official)
    model = zeroed()
    model.load_state_dict(official)
    assert_equal(model, source)
    assert official == before  # what is passed stays as it is
    wrapped = {f"module.{key}": value for key, value in official.items()}
    model = zeroed()
    model.load_state_dict(wrapped)
    assert_equal(model, source)
    wrapper = nn.ModuleDict({"module": zeroed()})  # as DistributedDataParallel has it
    wrapper.load_state_dict(wrapped)
    assert_equal(wrapper["module"], source)
    torch.save({"model": official, "args": Namespace(lr=1e-4)}, tmp_path / "detr.pth")
    for copied in (zeroed(), copy.deepcopy(zeroed()), pickle.loads(pickle.dumps(zeroed()))):
        DetectionCheckpointer(copied).load(str(tmp_path / "detr.pth"))
        assert_equal(copied, source)


def test_other_weights_are_left_alone() -> None:
    """A model's own state goes through untouched, and a key that is not there is an error as always."""
    source, model = small_detr(), zeroed()
    model.load_state_dict(source.state_dict())
    assert_equal(model, source)
    with pytest.raises(RuntimeError, match="extra.weight"):
        model.load_state_dict({**source.state_dict(), "extra.weight": torch.zeros(1)})


def test_classes_of_another_number_start_fresh_without_strict(caplog: pytest.LogCaptureFixture) -> None:
    source, model = small_detr(5), zeroed()
    with pytest.raises(RuntimeError, match="class_embed"):
        model.load_state_dict(official_names(source))
    with caplog.at_level(logging.WARNING):
        missing = model.load_state_dict(official_names(source), strict=False).missing_keys
    assert missing == ["head.class_embed.weight", "head.class_embed.bias"]
    assert "of another number of classes than 3: head start fresh." in caplog.text
    assert torch.equal(model.queries.position.weight, source.queries.position.weight)


def test_other_loaders_are_warned_of_plain_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Those of a checkpoint with averages; the library's own checkpointer knows what it takes."""
    model = zeroed()
    Checkpointer(model, str(tmp_path)).save("plain")
    Checkpointer(model, str(tmp_path), ema=ModelEMA(model=model)).save("both")
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(zeroed()).load(str(tmp_path / "plain.pth"))
        Checkpointer(zeroed()).load(str(tmp_path / "both.pth"))
        assert "averaged" not in caplog.text
        DetectionCheckpointer(zeroed()).load(str(tmp_path / "both.pth"))
    assert "plain weights of a checkpoint that also has averaged ones" in caplog.text
    assert "`align-detr weights convert` writes them as a file" in caplog.text


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("model_final", "load weights.pth of the same folder"),
        ("model_best", "load weights_best.pth of the same folder"),
        ("model_0000002", "Detector and align-detr take those"),
    ],
)
def test_the_warning_names_the_file_of_these_averages(
    name: str, remedy: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = zeroed()
    Checkpointer(model, str(tmp_path), ema=ModelEMA(model=model)).save(name)
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(zeroed()).load(str(tmp_path / f"{name}.pth"))
    assert f"evaluated: {remedy}" in caplog.text
