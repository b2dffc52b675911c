"""Config files and overrides: a fault is one sentence with the file, the line or the key."""

import pytest

from align_detr.errors import ConfigError
from align_detr.lazy_config import check_overrides, has_key, load_config


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train.update(epochs=", r"bad\.py, line 2: SyntaxError: "),
        ("train.update(epochs=absent)", r"bad\.py, line 2: NameError: name 'absent' is not defined"),
        ("import no_such_module", r"bad\.py, line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("from .part import x", r"part\.py, line 3: ZeroDivisionError: "),
    ],
)
def test_a_config_file_that_fails_is_named_with_its_line(tmp_path, line, message):
    (tmp_path / "part.py").write_text("\n\nx = 1 / 0\n")
    (tmp_path / "bad.py").write_text(f"train = dict()\n{line}\n")
    with pytest.raises(ConfigError, match=message) as error:
        load_config(str(tmp_path / "bad.py"))
    assert "\n" not in str(error.value)


def test_a_broken_part_of_a_config_is_named(tmp_path):
    (tmp_path / "part.py").write_text("x = 1\nx = (\n")
    (tmp_path / "whole.py").write_text("from .part import x\n")
    with pytest.raises(ConfigError, match=r"part\.py, line 2: SyntaxError: '\(' was never closed"):
        load_config(str(tmp_path / "whole.py"))


def test_a_config_without_the_nodes_of_training(tmp_path):
    (tmp_path / "half.py").write_text("train = dict(epochs=1)\n")
    with pytest.raises(ConfigError, match="does not define model, optimizer"):
        load_config(str(tmp_path / "half.py"))


def test_overrides_are_checked_against_the_config():
    cfg = load_config("detr/detr_r50_500ep.py", ["train.epochs=5", "+train.note=hello", "train.max_iter=null"])
    assert cfg.train.epochs == 5 and cfg.train.note == "hello"
    assert has_key(cfg, "train.max_iter") and has_key(cfg, "lr_multiplier.values.0")
    assert not has_key(cfg, "train.epochs.x")
    for bad in ("epochs=5", "train.clip.max_norm=1", "lr_multiplier.values.9=1", "~train.epochs", "train.epochs"):
        with pytest.raises(ConfigError):
            check_overrides(cfg, [bad])
    with pytest.raises(ConfigError, match="did you mean 'train.epochs'"):
        check_overrides(cfg, ["epochs=5"])
    with pytest.raises(ConfigError, match="did you mean 'train.clip_grad.max_norm'"):
        check_overrides(cfg, ["train.clip.max_norm=1"])
    with pytest.raises(ConfigError, match=r"'train.output_dir=a,b' reads as several values"):
        check_overrides(cfg, ["train.output_dir=a,b"])
