"""Training and evaluation from a detector: it starts from its weights and becomes what results."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from align_detr.detector import Detector
from align_detr.errors import ConfigError
from support import trees

from .conftest import CLASSES, pixels, small_config

SHORT = [
    "train.max_iter=2", "train.log_period=1", "dataloader.train.total_batch_size=2", "dataloader.train.num_workers=0",
    "dataloader.test.num_workers=0",
]  # fmt: skip

LENGTH = ("epochs", "max_iter", "eval_period", "eval_epochs", "checkpointer.period")


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """Training takes over some loggers: give them back."""
    loggers = [logging.getLogger(name) for name in ("align_detr", "detectron2", "fvcore")]
    before = [(logger, list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    yield
    for logger, handlers, propagate, level in before:
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    root = tmp_path / "my parts"
    trees.write_images(root / "images")
    trees.write_labels(root / "labels")
    trees.write_text(root / "data.yaml", "train: images\nnames: [ring, bolt]\n")
    return root


def test_a_detector_is_trained_evaluated_and_used(
    detector: Detector, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On other classes: the backbone starts from its weights, which a rate of zero keeps; then it knows the new
    classes, and so does the file that is left, which evaluates to the same.
    """
    monkeypatch.chdir(tmp_path)
    ours = Detector(weights=detector.save(tmp_path / "cells.pth"), device="cpu")
    small = "dataloader.train.mapper.augmentations.1.short_edge_length=[64]"
    without_crop = "dataloader.train.mapper.augmentations_with_crop=null"
    fixed = "optimizer.params.lr_factors={backbone: 0}"
    results = ours.train(parts, overrides=[*SHORT, small, without_crop, fixed])
    assert set(results["bbox"]) >= {"AP", "AP-ring", "AP-bolt"}
    assert ours.class_names == ["ring", "bolt"] and not ours.model.training
    for name, value in detector.model.backbone.state_dict().items():
        assert torch.equal(ours.model.backbone.state_dict()[name], value)
    before = detector.model.encoder.state_dict()
    assert not all(torch.equal(value, before[name]) for name, value in ours.model.encoder.state_dict().items())

    again = Detector(weights=tmp_path / "output/my_parts/weights.pth", device="cpu")
    assert again.class_names == ["ring", "bolt"]
    image = pixels(60, 80)
    assert torch.equal(again.predict(image).scores, ours.predict(image).scores)
    evaluated = again.evaluate(parts, split="val", output_dir=tmp_path / "evaluated")
    assert evaluated["bbox"]["AP"] == pytest.approx(results["bbox"]["AP"], nan_ok=True)
    assert (tmp_path / "evaluated/inference/coco_instances_results.json").is_file()


def test_a_detector_without_weights_is_trained_from_its_config(
    parts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """For as many epochs as are asked for, into the folder that is named."""
    fresh = Detector(small_config(), device="cpu")
    assert "has no weights and finds nothing before it is trained" in caplog.text
    before = [OmegaConf.select(fresh.config, f"train.{key}") for key in LENGTH]
    fresh.train(parts, epochs=1, output_dir=tmp_path / "a run", overrides=SHORT[1:])
    assert [OmegaConf.select(fresh.config, f"train.{key}") for key in LENGTH] == before  # which is not of other data
    assert fresh.class_names == ["ring", "bolt"] and (tmp_path / "a run" / "model_final.pth").is_file()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(x.relative_to(folder)): x.read_bytes() for x in sorted(folder.rglob("*")) if x.is_file()}


def test_a_refused_training_changes_nothing(detector: Detector, parts: Path, tmp_path: Path) -> None:
    """The start and the config.py of the run that the folder holds stay; arguments are checked first."""
    ours = Detector(weights=detector.save(tmp_path / "cells.pth"), device="cpu")
    run = tmp_path / "run"
    for name in ("start/weights.pth", "start/config.yaml", "config.py", "model_final.pth"):
        trees.write_text(run / name, f"of the earlier run: {name}")
    before = tree(run)
    for options, message in (
        ({}, "has checkpoints of an earlier run"),
        ({"epochs": "a"}, "epochs is 'a', but must be a finite number"),
        ({"overrides": "a=b"}, "overrides is 'a=b', but must be a list of texts"),
        ({"overwrite": True, "overrides": ["train.lr=1"]}, r"The config has no key 'train.lr'; did you mean .*\?$"),
        ({"overwrite": True, "epochs": 0}, "train.epochs=0"),
        ({"overwrite": True, "overrides": ["train.init_checkpoint=nowhere.pth"]}, "nowhere.pth"),
    ):
        with pytest.raises(ConfigError, match=message):
            ours.train(parts, output_dir=run, **options)
        after = {name: content for name, content in tree(run).items() if name in before}
        assert after == before and not (run / ".start").exists()
    assert ours.class_names == CLASSES


def test_a_failed_training_leaves_no_folder(detector: Detector, parts: Path, tmp_path: Path) -> None:
    ours = Detector(weights=detector.save(tmp_path / "cells.pth"), device="cpu")
    with pytest.raises(ConfigError, match=r"nowhere\.pth"):
        ours.train(parts, output_dir=tmp_path / "run", overrides=["train.init_checkpoint=nowhere.pth"])
    assert not (tmp_path / "run").exists()


def test_a_detector_out_of_a_file_states_no_length_and_trains_at_its_sizes(
    detector: Detector, parts: Path, tmp_path: Path
) -> None:
    """The second data set has its own length; digits have one longest side in training and evaluation."""
    ours = Detector(weights=detector.save(tmp_path / "cells.pth"), device="cpu")
    ours.train(parts, output_dir=tmp_path / "first", overrides=SHORT)
    assert [OmegaConf.select(ours.config, f"train.{key}") for key in LENGTH] == [None] * len(LENGTH)
    for name in ("train", "test"):
        last = ours.config.dataloader[name].mapper.augmentations[-1]
        assert (max(last.short_edge_length), last.max_size) == (64, 107)
    digits = Detector("digits", device="cpu").config.dataloader
    sizes = [
        each.max_size for name in ("train", "test") for each in digits[name].mapper.augmentations if "max_size" in each
    ]
    assert set(sizes) == {213}


def test_weights_of_a_folder_are_not_lost_by_training_into_it(
    detector: Detector, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ours = Detector(weights=detector.save("output/my_parts/weights.pth"), device="cpu")
    before = Path("output/my_parts/weights.pth").read_bytes()
    with pytest.raises(ConfigError, match="has weights.pth, which training would replace"):
        ours.train(parts, overrides=SHORT)
    assert Path("output/my_parts/weights.pth").read_bytes() == before
