"""The config in a file of weights: what of it is taken, by whom, and what a stranger's one cannot do."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from align_detr import Detector
from align_detr.checkpoint.contents import Weights, read_weights
from align_detr.engine.config_in_file import build_untrusted, config_in_file
from align_detr.engine.from_folder import _config_of
from align_detr.errors import ConfigError
from align_detr.shipped import shipped_weights

SHIPPED = read_weights(shipped_weights("digits"))


def weights(config: dict[str, Any] | str | None, path: str = "strange.pth") -> Weights:
    """Return weights with a config."""
    text = yaml.safe_dump(config) if isinstance(config, dict) else config
    return Weights({}, False, SHIPPED.class_names, text, None, path)


def content() -> dict[str, Any]:
    """Return the shipped detector's config as data."""
    return yaml.safe_load(SHIPPED.config or "")


def test_evaluation_takes_model_sizes_and_classes_alone() -> None:
    """Loaders, evaluators, their folders and the training's settings in a file do not count."""
    strange = content()
    strange["dataloader"]["evaluator"] = [{"_target_": "align_detr.evaluation.DetectionEvaluator", "output_dir": "/x"}]
    strange["dataloader"]["test"]["num_workers"] = 33
    strange["train"]["output_dir"] = "/x"
    strange["train"]["init_checkpoint"] = "/x"
    resize = {"_target_": "detectron2.data.transforms.ResizeShortestEdge", "short_edge_length": 77, "max_size": 99}
    strange["dataloader"]["test"]["mapper"]["augmentations"] = [resize]
    cfg = _config_of(weights(strange), None, ["train.output_dir=mine"])
    assert "/x" not in str(cfg) and "33" not in str(cfg)
    assert str(cfg.dataloader.evaluator.output_dir).startswith("mine")
    assert cfg.model == config_in_file(weights(content())).model
    assert list(cfg.train.class_names) == SHIPPED.class_names
    assert cfg.dataloader.test.mapper.augmentations[0] == resize


def test_the_config_in_the_file_goes_before_the_one_beside_it(tmp_path: Path) -> None:
    """Which is data as well, where the file holds none: nothing in it runs."""
    mark, beside, path = tmp_path / "mark", tmp_path / "config.yaml", str(tmp_path / "weights.pth")
    beside.write_text(f"!!python/object/apply:os.mkdir ['{mark}']")
    assert "model" in _config_of(weights(content(), path), None, [])
    with pytest.raises(ConfigError, match="cannot be read"):
        _config_of(weights(None, path), None, [])
    assert not mark.exists()
    beside.write_text(SHIPPED.config or "", encoding="utf-8")
    assert _config_of(weights(None, path), None, []).model == config_in_file(SHIPPED).model
    beside.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="config.yaml cannot be read as text"):
        config_in_file(weights(None, path))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model", {"_target_": "torch.nn.Identity", "head": {"num_classes": 3}}, "describes a Identity, which is no"),
        ("model", {"_target_": "torch.nn.Identity"}, "The config's model has no num_classes"),
        ("dataloader", {"test": {"mapper": "abc"}}, "has a dataloader.test.mapper that is no DetrMapper"),
        ("dataloader", {"test": {"mapper": {"_target_": "torch.nn.Identity"}}}, "mapper that is no DetrMapper"),
        (
            "dataloader",
            {"test": {"mapper": {"_target_": "align_detr.data.DetrMapper", "augmentations": [3], "is_train": False}}},
            "cannot be built|that is no DetrMapper",
        ),
    ],
)
def test_nonsense_of_listed_parts_is_one_sentence(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_untrusted(config_in_file(weights({**content(), key: value})), "strange.pth")


def test_a_model_that_cannot_be_built_is_one_sentence() -> None:
    strange = content()
    strange["model"]["decoder"]["layer"] = 3
    with pytest.raises(ConfigError, match=r"The config in strange.pth cannot be built \("):
        build_untrusted(config_in_file(weights(strange)), "strange.pth")


@pytest.mark.parametrize("name", ["${oc.env:HOME}", "???", "a\nb", "\x1b[31mred", "a\u2028b"])
def test_class_names_that_are_no_line_of_text_are_refused(name: str, tmp_path: Path) -> None:
    """In the file, and in its config."""
    saved = torch.load(shipped_weights("digits"), weights_only=True)
    saved["classes"]["names"][0] = name
    torch.save(saved, tmp_path / "w.pth")
    with pytest.raises(ConfigError, match="w.pth has the class .*: save the weights with another name"):
        Detector(weights=tmp_path / "w.pth")
    strange = content()
    strange["train"]["class_names"] = [name]
    unnamed = Weights({}, False, None, yaml.safe_dump(strange), None, "strange.pth")
    with pytest.raises(ConfigError, match="strange.pth (has train.class_names|has the value)"):
        config_in_file(unnamed)
