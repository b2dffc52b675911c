"""Values that mean "off": they train, or one sentence names the key before anything is trained."""

import logging

import pytest

from align_detr.errors import ConfigError
from align_detr.lazy_config import load_config

OFF = (
    "train.checkpointer=null",
    "train.checkpointer.max_to_keep=0",
    "train.checkpointer.max_to_keep=null",
    "train.log_period=null",
    "train.clip_grad.max_norm=null",
    "train.clip_grad=null",
    "train.init_checkpoint=null",
    "train.amp=null",
    "train.ema=null",
    "train.ddp=null",
    "train.freeze=0",
    "train.base_batch_size=0",
    "train.data_timeout=null",
    "dataloader.train.num_workers=null",
    "train.pictures=null",
    "train.accumulate=null",
    "train.accumulate=0",
    "train.patience=0",
    "train.best=0",
    "train.loggers=0",
    "train.amp=0",
    "train.amp.enabled=0",
    "train.clip_grad=0",
    "train.checkpointer=0",
    "train.ddp=0",
    "dataloader.test=0",
    "dataloader.evaluator=0",
)
REFUSED = {
    "train.max_iter=0": "train.max_iter is 0",
    "train.max_iter=text": "train.max_iter is 'text'",
    "train.epochs=null": "train.epochs is None",
    "train.eval_period=-1": "train.eval_period is -1",
    "train.checkpointer.period=-1": "train.checkpointer.period is -1",
    "train.checkpointer.max_to_keep=-1": "train.checkpointer.max_to_keep is -1",
    "train.log_period=-1": "train.log_period is -1",
    "train.clip_grad.max_norm=-1": "train.clip_grad.max_norm is -1",
    "train.clip_grad.norm_type=null": "train.clip_grad.norm_type is None",
    "train.seed=text": "train.seed is 'text'",
    "train.warmup_epochs=text": "train.warmup_epochs is 'text'",
    "train.output_dir=null": "train.output_dir is None",
    "train.on_nonfinite=ignore": "train.on_nonfinite is 'ignore'",
    "train.on_nonfinite_limit=0": "train.on_nonfinite_limit is 0",
    "train.attention_sparsity=-1": "train.attention_sparsity is -1",
    "train.data_timeout=-1": "train.data_timeout is -1",
    "train.data_timeout=1e9": "train.data_timeout is 1000000000.0",
    "train.pictures=some": "train.pictures is 'some'",
    "train.best=true": "train.best is True",
    "train.loggers=1": "train.loggers is 1",
    "train.amp=1": "train.amp is 1",
    "train.amp.enabled=some": "train.amp.enabled is 'some'",
    "train.ema.enabled=some": "train.ema.enabled is 'some'",
    "train.seed=4294967296": "train.seed is 4294967296",
    "train.amp.dtype=null": "train.amp.dtype=None",
    "model=null": "model is null",
    "model.num_classes=0": "model.num_classes is 0",
    "train=null": "train is null",
    "lr_multiplier=null": "lr_multiplier is null",
    "optimizer=null": "optimizer is null",
    "optimizer.lr=null": "optimizer.lr is None",
    "optimizer.lr=-1": "optimizer.lr is -1",
    "optimizer.weight_decay=null": "optimizer.weight_decay is None",
    "optimizer.betas=null": "optimizer.betas is None",
    "dataloader=null": "dataloader is null",
    "dataloader.train=null": "dataloader.train is null",
    "dataloader.train.total_batch_size=0": "dataloader.train.total_batch_size=0",
    "dataloader.train.num_workers=-1": "dataloader.train.num_workers is -1",
    "dataloader.train.dataset=null": "dataloader.train.dataset is null",
    "dataloader.train.mapper=null": "dataloader.train.mapper is null",
    "dataloader.test.mapper=null": "dataloader.test.mapper is null",
    "+dataloader.test.batch_size=0": "dataloader.test.batch_size is 0",
}


@pytest.mark.parametrize("override", OFF)
def test_off_trains_and_ends_with_status_0(tiny_run, override: str) -> None:
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0", override) == 0
    assert (tiny_run.output / "model_final.pth").is_file()


@pytest.mark.parametrize("override", REFUSED)
def test_anything_else_is_one_sentence_before_training(tiny_run, override: str, capsys) -> None:
    length = [] if "max_iter" in override or "epochs" in override else ["train.max_iter=1"]
    assert tiny_run.train(*length, override) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and REFUSED[override] in lines[0] and lines[0].endswith(".")
    assert not list(tiny_run.output.glob("*.pth"))


def test_a_folder_that_cannot_be_made_is_one_sentence(tiny_run, capsys) -> None:
    assert tiny_run.train(f"train.output_dir={tiny_run.config}") == 2
    assert f"error: {tiny_run.config} cannot be written (File exists)" in capsys.readouterr().err


def test_a_period_of_0_saves_and_logs_at_the_end_only(tiny_run) -> None:
    assert tiny_run.train("train.max_iter=3", "train.checkpointer.period=0", "train.log_period=0") == 0
    assert [path.name for path in tiny_run.output.glob("model_*.pth")] == ["model_final.pth"]
    assert {row["iteration"] for row in tiny_run.metrics() if "total_loss" in row} == {2}


def test_max_to_keep_0_keeps_all(tiny_run) -> None:
    assert tiny_run.train("train.max_iter=5", "train.checkpointer.period=1", "train.checkpointer.max_to_keep=0") == 0
    assert len(list(tiny_run.output.glob("model_0*.pth"))) == 5


@pytest.mark.parametrize(
    "overrides",
    [["dataloader.test=null"], ["dataloader.evaluator=null"], ["dataloader.test=null", "dataloader.evaluator=null"]],
)
def test_without_a_validation_set_training_says_so_once(tiny_run, overrides: list[str], capsys) -> None:
    assert tiny_run.train("train.max_iter=2", "train.eval_period=1", *overrides) == 0
    key = overrides[0].removesuffix("=null")
    assert capsys.readouterr().out.count(f"Nothing is evaluated, as the config has no {key}.") == 1
    assert not any("bbox/AP" in row for row in tiny_run.metrics())
    assert tiny_run.train("--eval-only", *overrides) == 2


@pytest.mark.parametrize("override", ["train.best=bbox/AP", "train.patience=2"])
def test_the_best_checkpoint_needs_a_validation_set(tiny_run, override: str, capsys) -> None:
    assert tiny_run.train("train.max_iter=2", "dataloader.test=null", override) == 2
    assert "needs evaluations, and the config has no test data or evaluator" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["queries.num_queries", "head.num_classes", "embed_dim"])
def test_a_detector_without_queries_classes_or_channels_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=r"is 0, but must be a whole number of at least 1"):
        load_config("quickstart/digits_detr.py", [f"model.{key}=0" if "." in key else f"model.neck.{key}=0"])


def test_null_augmentations_leave_images_as_they_are(caplog) -> None:
    from detectron2.config import instantiate

    cfg = load_config("quickstart/digits_detr.py", ["dataloader.train.mapper.augmentations=null"])
    with caplog.at_level(logging.INFO):
        assert instantiate(cfg.dataloader.train.mapper).augmentations.augs == []
