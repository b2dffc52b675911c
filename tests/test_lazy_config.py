"""Config files and overrides: a fault is one sentence with the file, the line or the key."""

import pytest
from omegaconf import OmegaConf

from align_detr.errors import ConfigError
from align_detr.lazy_config import check_overrides, has_key, load_config
from align_detr.overrides import unread_keys
from support.shrink import config


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
    cfg = load_config("detr/detr_r50_500ep.py", ["train.epochs=5", "+mine.note=hello", "train.max_iter=null"])
    assert cfg.train.epochs == 5 and cfg.mine.note == "hello"
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


@pytest.mark.parametrize(
    ("override", "key"),
    [
        *((f"{name}=1", "optimizer.lr") for name in ("learning_rate", "lr", "train.learning_rate", "train.lr")),
        *((f"{name}=640", "train.image_size") for name in ("imgsz", "img_size", "dataloader.image_size")),
        *((f"{name}=8", "dataloader.train.total_batch_size") for name in ("batch", "batch_size", "train.batch_size")),
        ("num_classes=3", "model.head.num_classes"),
        ("model.num_classes=3", "model.head.num_classes"),
        ("epochs=3", "train.epochs"),
        ("amp=True", "train.amp.enabled"),
        ("workers=2", "dataloader.train.num_workers"),
        ("weights=model.pth", "train.init_checkpoint"),
        ("train.grad_accumulation=4", "train.accumulate"),
    ],
)
def test_names_of_other_libraries_lead_to_the_key(override, key):
    with pytest.raises(ConfigError, match=f"has no key .*; did you mean '{key}'"):
        check_overrides(config("detr/detr_r50_500ep.py"), [override])


def test_the_number_of_classes_of_an_rcnn():
    with pytest.raises(ConfigError, match="did you mean 'model.roi_heads.num_classes'"):
        check_overrides(config("FasterRCNN/faster_rcnn_r50_fpn_36ep.py"), ["num_classes=3"])


def test_a_key_that_nothing_reads_is_not_added():
    cfg = config("detr/detr_r50_500ep.py")
    check_overrides(cfg, ["+train.ddp.bucket_cap_mb=5", "+train.class_names=[a]", "+mine.lr=1", "+model.extra=1"])
    check_overrides(cfg, ["+train.epochs=5", "+optimizer.eps=1e-7"])
    for override, message in (
        (
            "+train.grad_accum=4",
            r"Nothing reads the key 'train.grad_accum'; did you mean 'train.accumulate'\? .*\+mine",
        ),
        ("+train.ema.decya=0.9", "did you mean 'train.ema.decay'"),
        ("+lr=1", "did you mean 'optimizer.lr'"),
        ("+train.foo=1", r"Nothing reads the key 'train.foo' \(a key for code of your own"),
    ):
        with pytest.raises(ConfigError, match=message):
            check_overrides(cfg, [override])
    assert unread_keys(OmegaConf.create({"epochs": 1, "fast_dev_run": {"enabled": True}, "freeze": ["a"]})) == [
        "train.fast_dev_run",
        "train.fast_dev_run.enabled",
    ]


def test_a_config_file_of_an_earlier_version_gets_the_new_keys(tmp_path):
    """Its own values stay, and the batch before overrides is the base of the scaling of rates."""
    (tmp_path / "old.py").write_text(
        "train = dict(output_dir='x', epochs=3, ema=dict(enabled=True), max_iter=None)\nmodel = dict()\n"
        "optimizer = dict(lr=1.0)\nlr_multiplier = dict()\ndataloader = dict(train=dict(total_batch_size=8))\n"
    )
    cfg = load_config(str(tmp_path / "old.py"), ["dataloader.train.total_batch_size=32", "train.accumulate=2"])
    assert (cfg.train.epochs, cfg.train.ema.enabled, cfg.train.ema.decay, cfg.train.accumulate) == (3, True, 0.9998, 2)
    assert (cfg.train.base_batch_size, cfg.dataloader.train.total_batch_size) == (8, 32)


def test_epochs_of_the_command_line_replace_the_iterations_of_the_config():
    """And the periods in iterations, unless these are given as well; 0, "only at the end", stays."""
    cfg = load_config("quickstart/digits.py", ["train.epochs=5"])
    assert (cfg.train.max_iter, cfg.train.eval_period, cfg.train.checkpointer.period) == (None, None, None)
    cfg = load_config("quickstart/digits.py", ["train.epochs=5", "train.eval_period=7", "train.max_iter=null"])
    assert (cfg.train.max_iter, cfg.train.eval_period) == (None, 7)
    cfg = load_config("quickstart/coco_mini.py", ["train.epochs=5"])
    assert (cfg.train.max_iter, cfg.train.eval_period) == (None, 0)
    cfg = load_config("quickstart/digits.py", ["train.max_iter=9"])
    assert cfg.train.max_iter == 9 and cfg.train.eval_period == config("quickstart/digits.py").train.eval_period
    with pytest.raises(ConfigError, match="train.epochs=5 and train.max_iter=9 both set the length of the run"):
        load_config("quickstart/digits.py", ["train.epochs=5", "train.max_iter=9"])
