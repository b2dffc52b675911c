"""Training and evaluation on a data set's folder: the commands, their config and the same from Python."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import align_detr
from align_detr.cli.main import main
from align_detr.data import load_dataset
from align_detr.engine.data_config import DataOptions, class_count_keys, write_config
from align_detr.errors import ConfigError, DatasetError
from align_detr.lazy_config import load_config
from support import trees

CONFIG = "quickstart/digits_detr.py"
SHORT = [
    "train.max_iter=2", "train.eval_period=0", "train.log_period=1", "train.device=cpu",
    "dataloader.train.total_batch_size=2", "model.decoder.num_layers=1", "model.encoder.num_layers=1",
]  # fmt: skip


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """Return a YOLO data set without a validation split."""
    root = tmp_path / "my parts"
    trees.write_images(root / "images")
    trees.write_labels(root / "labels")
    trees.write_text(root / "data.yaml", "train: images\nnames: [screw, bolt]\n")
    return root


def voc(root: Path) -> Path:
    """Write the same photos as Pascal VOC, where classes come in alphabetical order."""
    trees.write_images(root)
    trees.write_xmls(root)
    return root


def test_one_command_trains_on_a_folder_and_its_config_runs_by_itself(yolo, tmp_path, monkeypatch, capsys):
    """The number of classes, the split and the folder of results come from the data; config.py gives the same run."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", str(yolo), "--config-file", CONFIG, "--split-seed", "1", *SHORT]) == 0
    output = tmp_path / "output" / "my_parts"
    printed = capsys.readouterr().out
    assert f"This config is {Path('output/my_parts/config.py')}." in printed
    assert 'train.class_names = ["screw", "bolt"]' in printed
    assert "model.head.num_classes = 2" in printed
    assert (output / "model_final.pth").is_file()
    assert (output / "inference/coco_instances_results.json").is_file()

    def losses(folder: Path) -> list[float]:
        rows = map(json.loads, (folder / "metrics.json").read_text().splitlines())
        return [row["total_loss"] for row in rows if "total_loss" in row]

    again = tmp_path / "again"
    assert main(["train", "--config-file", str(output / "config.py"), f"train.output_dir={again}"]) == 0
    assert losses(again) == losses(output)


def test_evaluation_compares_classes_by_name(yolo, tmp_path, monkeypatch, capsys):
    """A checkpoint is evaluated on another layout with other class numbers, and refused on classes it does not know."""
    monkeypatch.chdir(tmp_path)
    trained = align_detr.train(CONFIG, data=yolo, val_fraction=0.4, overrides=SHORT)
    assert set(trained["bbox"]) >= {"AP", "AP-screw", "AP-bolt"}
    weights = tmp_path / "output/my_parts/model_final.pth"
    other = voc(tmp_path / "parts_voc")
    results = align_detr.evaluate(weights, data=other)
    alone = tmp_path / "alone" / "weights.pth"  # whose config is inside
    alone.parent.mkdir()
    shutil.copy(weights.parent / "weights.pth", alone)
    assert align_detr.evaluate(alone, data=other)["bbox"] == pytest.approx(results["bbox"], nan_ok=True)
    assert (alone.parent / "evaluate_parts_voc_train/inference/coco_instances_results.json").is_file()
    assert (weights.parent / "evaluate_parts_voc_train/inference/coco_instances_results.json").is_file()
    layers = ["--layers", "--against", str(alone)]
    assert main(["evaluate", "--data", str(yolo), "--weights", str(weights), *layers]) == 0
    assert main(["evaluate", "--data", str(yolo), "--weights", str(weights), *layers[1:]]) == 2
    assert "by its layers' matching only: give layers=True" in capsys.readouterr().err
    folder = weights.parent / "evaluate_my_parts_train/inference"
    assert (folder / "layers/layer_1.json").read_bytes() == (folder / "coco_instances_results.json").read_bytes()
    matching = json.loads((folder / "layers/matching.json").read_text())
    assert matching["between_checkpoints"] == [{"objects": 0.0, "queries_per_image": 0.0}], "of the same weights"
    metrics = (weights.parent / "evaluate_my_parts_train/metrics.json").read_text()
    assert json.loads(metrics)["bbox/AP"] == pytest.approx(results["bbox"]["AP"], nan_ok=True)

    path = other / "a.xml"
    path.write_text(path.read_text().replace("bolt", "nut"))
    with pytest.raises(DatasetError, match="has objects of the class 'nut', but the classes are screw, bolt"):
        align_detr.evaluate(weights, data=other)
    with pytest.raises(DatasetError, match="has no test split, but train: name one of them"):
        align_detr.evaluate(weights, data=other, split="test")
    assert main(["evaluate", "--data", str(other), "--weights", "nowhere.pth"]) == 2
    assert "There is no checkpoint nowhere.pth: pass the path" in capsys.readouterr().err
    torch.save({"weight": torch.zeros(1)}, tmp_path / "bare.pth")
    with pytest.raises(ConfigError, match=r"bare.pth does not hold the config of its training, and no config.yaml"):
        align_detr.evaluate(tmp_path / "bare.pth", data=other)


@pytest.mark.parametrize(
    ("arguments", "fraction", "seed"),
    [
        (["--split", "val"], 0.2, 0),
        (["--val-fraction", "0.6"], 0.6, 0),
        (["--split-seed", "2"], 0.2, 2),
        (["--split", "val", "--split-seed", "1", "--val-fraction", "0.7"], 0.7, 1),
        ([], None, None),
    ],
)
def test_evaluation_takes_the_images_that_training_held_out(
    yolo, tmp_path, monkeypatch, caplog, arguments, fraction, seed
):
    """Those of the same fraction and seed; without an option all images, and a warning."""
    monkeypatch.chdir(tmp_path)
    evaluated: list[str] = []
    monkeypatch.setattr(
        "align_detr.engine.run.evaluate_only",
        lambda cfg, **options: (
            evaluated.extend(r["file_name"] for r in load_dataset(cfg.dataloader.test.dataset)) or {}
        ),
    )
    monkeypatch.setattr("align_detr.engine.from_folder.set_up", lambda options: None)
    torch.save({"weight": torch.zeros(1)}, "model.pth")
    with caplog.at_level(logging.WARNING):
        assert (
            main(["evaluate", "--data", str(yolo), "--weights", "model.pth", "--config-file", CONFIG, *arguments]) == 0
        )
    warned = "all its 3 images count, also those trained on" in caplog.text
    if fraction is None:
        assert len(evaluated) == 3 and warned
        return
    options = DataOptions(str(yolo), val_fraction=fraction, split_seed=seed)
    load_config(str(write_config(options, CONFIG)))
    assert evaluated == [record["file_name"] for record in load_dataset("my_parts_val")]
    assert not warned


def test_the_default_config_trains_long_enough_for_a_small_set(yolo, tmp_path, monkeypatch):
    """3 photos, 1 held out, in batches of 4: one iteration per epoch, so 1,000 epochs; the user's own number stays."""
    monkeypatch.chdir(tmp_path)
    cfg = load_config(str(write_config(DataOptions(str(yolo)))))
    assert (cfg.train.epochs, cfg.train.eval_period, cfg.train.max_iter) == (1000, 100, None)
    assert cfg.train.checkpointer.period == 100
    cfg = load_config(
        str(write_config(DataOptions(str(yolo)), overrides=["train.epochs=3", "optimizer.betas=[0.8,0.9]"]))
    )
    assert (cfg.train.epochs, cfg.train.eval_period) == (3, None)
    assert list(cfg.optimizer.betas) == [0.8, 0.9]
    assert cfg.dataloader.train.dataset == "my_parts_train"
    assert cfg.model.proposals.num_classes == cfg.model.head.num_classes == 2


def test_training_needs_a_training_split(yolo, tmp_path, monkeypatch, capsys):
    """A data.yaml with nothing but a validation split is refused in one sentence."""
    monkeypatch.chdir(tmp_path)
    trees.write_text(yolo / "data.yaml", "val: images\nnames: [screw, bolt]\n")
    assert main(["train", "--data", str(yolo)]) == 2
    assert "has no training split, but val: add the images to train on." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("quickstart/your_data.py", ["model.head.num_classes"]),
        ("dino/dino_r50_4scale_12ep.py", ["model.head.num_classes"]),
        ("FasterRCNN/faster_rcnn_digits.py", ["model.roi_heads.num_classes"]),
        ("TSP/align_tsp_rcnn_r50_36ep.py", ["model.roi_heads.num_classes"]),
    ],
)
def test_all_numbers_of_classes_follow_from_the_keys_that_are_set(name, keys):
    """Every num_classes of the model is the new number once the keys are set."""
    cfg = load_config(name)
    assert class_count_keys(cfg.model) == keys
    for key in keys:
        OmegaConf.update(cfg, key, 7)
    text = OmegaConf.to_yaml(cfg.model, resolve=True)
    assert set(re.findall(r"num_classes: (\d+)", text)) == {"7"}


def test_a_model_without_a_number_of_classes_is_told():
    """The sentence names the key."""
    with pytest.raises(ConfigError, match="no num_classes to set: use a config with model.head.num_classes"):
        class_count_keys(OmegaConf.create({"backbone": {"depth": 50}}))


def test_training_needs_data_or_a_config(capsys):
    """The sentence names both options; the status is that of every error of the user."""
    assert main(["train"]) == 2
    assert "pass --data with a folder, or --config-file, or both" in capsys.readouterr().err


def test_convert_from_the_command_line(yolo, tmp_path, capsys):
    """It prints what was written; a folder with files is an error of the user."""
    arguments = ["convert", str(yolo), "--to", "voc", "--out", str(tmp_path / "out"), "--val-fraction", "0.3"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "train: 2 images" in out
    assert "classes screw, bolt" in out
    assert main(arguments) == 2
    assert "out holds files already" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "evaluate", "convert"])
def test_help_is_complete(command, capsys):
    """Every option is explained, and the exit status is documented."""
    with pytest.raises(SystemExit) as end:
        main([command, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0
    assert f"usage: align-detr {command}" in text
    assert "Exit status: 0; 2 after one printed sentence" in text
