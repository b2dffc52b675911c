"""Whole runs of the training command on a tiny detector: train, evaluate, resume, refuse."""

import errno
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig
from omegaconf import OmegaConf

from align_detr.checkpoint.contents import read_weights
from align_detr.cli.train import main
from align_detr.engine.class_names import write_config
from align_detr.engine.run_length import RunLength, resolve_length
from align_detr.errors import EnvironmentProblem
from align_detr.lazy_config import load_config


def results(row):
    return {key: value for key, value in row.items() if key.startswith("bbox/")}


def test_train_evaluate_and_evaluate_again(tiny_run, capsys):
    assert tiny_run.train("train.ema.enabled=True", "train.ema.decay=0.5") == 0
    out = capsys.readouterr().out
    assert "8 images" in out and "4 images" in out  # training and test data
    assert "Batch: 4 images in all, 4 on each process (1)" in out
    assert "3 epochs x 2 iterations = 6 iterations" in out
    assert "base 0.01" in out and "backbone 0.001" in out
    assert "iter 6/6  epoch 3.00  loss" in out

    rows = tiny_run.metrics()
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert {"total_loss", "loss_class", "loss_bbox", "lr_base", "lr_backbone", "grad_norm"} <= rows[0].keys()
    assert "bbox/AP" in rows[1] and "bbox/AP" in rows[6] and "bbox/AP" not in rows[0]
    assert rows[6]["bbox/AP"] > 0
    saved = LazyConfig.load(str(tiny_run.output / "config.yaml")).train
    assert (saved["max_iter"], saved["eval_period"], saved["checkpointer"]["period"]) == (None, None, None)
    assert list(tiny_run.output.glob("events.out.tfevents*"))

    # the newest checkpoint of the folder, a named one, and the saved config: the same numbers
    checkpoint = f"train.init_checkpoint={tiny_run.output}/model_final.pth"
    assert tiny_run.train("--eval-only", "train.ema.enabled=True") == 0
    assert tiny_run.train("--eval-only", "train.ema.enabled=True", checkpoint) == 0
    assert main(["--config-file", str(tiny_run.output / "config.yaml"), "--eval-only"]) == 0
    *_, last, again, named, saved = tiny_run.metrics()
    assert results(last) == results(again) == results(named) == results(saved)
    assert again["iteration"] == named["iteration"] == 6


def test_each_data_set_is_read_once(tiny_run):
    """By training, and by evaluation alone; reading a data set logs a line."""
    assert tiny_run.train("train.max_iter=1") == 0
    log = tiny_run.output / "log.txt"
    assert [log.read_text().count(f"Data set {name}:") for name in ("tiny_train", "tiny_val")] == [1, 1]
    assert tiny_run.train("--eval-only") == 0
    assert [log.read_text().count(f"Data set {name}:") for name in ("tiny_train", "tiny_val")] == [1, 2]


def test_a_part_that_cannot_be_imported_is_named(tiny_run, capsys):
    """As in a config.yaml of an earlier version, which names modules that are gone."""
    assert tiny_run.train("+model.extra._target_=align_detr.modeling.costs.FocalCost", "train.max_iter=1") == 2
    assert "'align_detr.modeling.costs.FocalCost'" in (err := capsys.readouterr().err)
    assert "align_detr.modeling.<part>" in err


def test_evaluation_uses_the_averaged_weights(tiny_run):
    """AP falls to 0 only with the averaged weights, which the test replaces by a box in the corner."""
    assert tiny_run.train("train.ema.enabled=True", "train.max_iter=1") == 0
    path = tiny_run.output / "model_final.pth"
    state = torch.load(path, weights_only=True)
    assert state["ema"]["num_updates"] == 1
    state["ema"]["model"]["bbox_embed.bias"] = torch.tensor([-9.0, -9.0, -8.0, -8.0])
    torch.save(state, path)
    assert tiny_run.train("--eval-only") == 0
    assert tiny_run.train("--eval-only", "train.init_averaged=False") == 0
    averaged, plain = tiny_run.metrics()[-2:]
    assert averaged["bbox/AP"] == 0 < plain["bbox/AP"]
    assert tiny_run.train(f"train.init_checkpoint={path}", f"train.output_dir={path.parent}2", "train.max_iter=1") == 0
    started = torch.load(f"{path.parent}2/weights.pth", weights_only=True)
    assert started["model"]["bbox_embed.bias"].min() < -8.5


def test_training_leaves_the_evaluated_weights_alone(tiny_run):
    """Averaged, with classes and config: all that another program needs to detect objects with them."""
    assert tiny_run.train("train.ema.enabled=True", "train.ema.decay=0.5", "train.max_iter=2") == 0
    checkpoint = tiny_run.output / "model_final.pth"
    whole = torch.load(checkpoint, weights_only=True)
    plain, averaged = read_weights(checkpoint, averaged=False), read_weights(checkpoint)
    alone = read_weights(tiny_run.output / "weights.pth")
    assert [x.averaged for x in (plain, averaged, alone)] == [False, True, True]
    for key, value in whole["ema"]["model"].items():
        assert torch.equal(alone.state[key], value) and torch.equal(averaged.state[key], value)
        assert torch.equal(plain.state[key], whole["model"][key])
    for weights in (plain, averaged, alone):
        assert (weights.class_names, weights.iteration) == (["dark", "bright"], 2)
        saved = (tiny_run.output / "config.yaml").read_text()
        assert weights.config == saved.replace(str(tiny_run.output), "./output/output")  # no path of this machine
    assert tiny_run.train("--eval-only", f"train.init_checkpoint={tiny_run.output}/weights.pth") == 0
    assert results(tiny_run.metrics()[-1]) == results(tiny_run.metrics()[-2])


def test_evaluation_prefers_the_trained_checkpoint_to_the_configs_initial_one(tiny_run, capsys):
    """An initial checkpoint that holds only a backbone is there to start training from, and is never evaluated."""
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    model = torch.load(tiny_run.output / "model_final.pth", weights_only=True)["model"]
    backbone = tiny_run.output.parent / "backbone.pth"
    torch.save({key: value for key, value in model.items() if key.startswith("backbone.")}, backbone)
    with tiny_run.config.open("a") as config:
        config.write(f"train.init_checkpoint = {str(backbone)!r}\n")
    assert tiny_run.train("--eval-only") == 0
    assert results(tiny_run.metrics()[-1]) == results(tiny_run.metrics()[-2])
    capsys.readouterr()
    assert tiny_run.train("--eval-only", f"train.init_checkpoint={backbone}") == 2
    assert "backbone.pth lacks 7 of the model's tensors" in capsys.readouterr().err
    assert tiny_run.train("--eval-only", f"train.output_dir={tiny_run.output}_empty") == 2
    message = capsys.readouterr().err
    assert f"{tiny_run.output}_empty has no checkpoint to evaluate, and train.init_checkpoint of the config" in message
    assert "folder of a run" in message
    fresh = f"{tiny_run.output}_fresh"
    assert tiny_run.train(f"train.output_dir={fresh}", "train.max_iter=1", "train.eval_period=0") == 0
    out, details = capsys.readouterr().out, "Tensors not in the file, start fresh: seen, norm.weight, norm.bias"
    assert "Loaded the backbone (2 tensors); 7 others start fresh." in out and "Tensors" not in out
    assert details in Path(fresh, "log.txt").read_text()  # there alone


def test_resumed_run_ends_as_the_uninterrupted_one(tiny_run, tmp_path):
    """Weights, moments and rates are equal; the line of the checkpoint's iteration is written again."""
    options = ["dataloader.train.total_batch_size=8", "train.epochs=6", "train.checkpointer.period=3"]
    options += ["train.eval_period=0", "train.ema.enabled=True", "lr_multiplier.milestones=[8]"]
    assert tiny_run.train(*options) == 0
    resumed = tmp_path / "resumed"
    resumed.mkdir()
    shutil.copy(tiny_run.output / "model_0000002.pth", resumed)
    (resumed / "last_checkpoint").write_text("model_0000002.pth")
    assert tiny_run.train("--resume", f"train.output_dir={resumed}", *options) == 0

    assert [row["iteration"] for row in tiny_run.metrics(resumed)] == [2, 3, 4, 5, 6]
    a, b = (torch.load(folder / "model_final.pth", weights_only=True) for folder in (tiny_run.output, resumed))
    assert a["trainer"]["iteration"] == b["trainer"]["iteration"] == 5
    assert a["ema"]["num_updates"] == b["ema"]["num_updates"] == 6
    for key in a["model"]:
        assert torch.equal(a["model"][key], b["model"][key])
        assert torch.equal(a["ema"]["model"][key], b["ema"]["model"][key])
    moments = [run["trainer"]["optimizer"]["state"] for run in (a, b)]
    for index in moments[0]:
        assert moments[0][index]["step"] == moments[1][index]["step"] == 6
    rates = [
        {row["iteration"]: row["lr_base"] for row in tiny_run.metrics(folder) if "lr_base" in row}
        for folder in (tiny_run.output, resumed)
    ]
    assert {i: rates[0][i] for i in (2, 3, 4, 5)} == rates[1]
    assert rates[0][3] == pytest.approx(1e-2) and rates[0][5] == pytest.approx(1e-3)  # drop after 8/12 of the run


def test_resume_without_a_checkpoint_warns_and_starts_at_iteration_0(tiny_run, capsys):
    assert tiny_run.train("--resume", "train.max_iter=1", "train.eval_period=0") == 0
    assert "no checkpoint to resume" in capsys.readouterr().out
    assert tiny_run.metrics()[0]["iteration"] == 0


def test_bfloat16_run(tiny_run):
    assert tiny_run.train("train.amp.enabled=True", "train.max_iter=2", "train.eval_period=0") == 0
    plain = tiny_run.metrics()[0]["total_loss"]
    assert tiny_run.train(f"train.output_dir={tiny_run.output}32", "train.max_iter=2", "train.eval_period=0") == 0
    full = tiny_run.metrics(tiny_run.output.with_name("output32"))[0]["total_loss"]
    assert plain != full and plain == pytest.approx(full, rel=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.ouput_dir=x"], "no key 'train.ouput_dir'; did you mean 'train.output_dir'?"),
        (["train.amp.enabled=True", "train.amp.dtype=float16"], "float16 needs CUDA"),
        (["model.num_classes=3"], "has 2"),
        (["dataloader.train.dataset=tiny_trian"], "is not registered: use tiny_train"),
        (["--eval-only"], "nothing to evaluate"),
        (["train.init_checkpoint=absent.pth"], "absent.pth does not exist"),
        (["--eval-only", "--resume"], "exclude each other"),
        (["--num-gpus", "3"], "total_batch_size=4 cannot be shared equally by 3 processes"),
        (["--num-machines", "2"], "needs --dist-url"),
        (["train.epochs=0"], "must be positive"),
        (["dataloader.train.total_batch_size=0"], "total_batch_size=0 must be positive"),
        (["dataloader.train.total_batch_size=null"], "total_batch_size is missing"),
        (["dataloader.train.dataset=null"], "names no data set to count epochs by"),
        (["train.device=gpu"], "train.device=gpu is no device"),
        (["train.device=null"], "train.device=None is no device"),
        # before the model is built: a convolution of -5 channels is an error without a sentence
        (["+model.channels=-5", "dataloader.train.dataset=tiny_trian"], "'tiny_trian' is not registered"),
        (["+model.channels=-5", "dataloader.test.dataset=tiny_vla"], "'tiny_vla' is not registered"),
        (["--eval-only", "+model.channels=-5", "dataloader.evaluator=null"], "no dataloader.evaluator"),
        (["--eval-only", "+model.channels=-5", "dataloader.test=null"], "no dataloader.test"),
        (["+model.channels=-5", "train.amp.enabled=True", "train.amp.dtype=float8"], "float8 is unknown"),
        # before weights are loaded, let alone downloaded
        (["train.init_checkpoint=absent.pth", "dataloader.train.dataset=tiny_trian"], "'tiny_trian' is not registered"),
        (["train.init_checkpoint=absent.pth", "dataloader.test.dataset=tiny_vla"], "'tiny_vla' is not registered"),
        (["train.init_checkpoint=absent.pth", "model.num_classes=3"], "The model has 3 classes"),
        (["--eval-only", "train.init_checkpoint=absent.pth", "model.num_classes=3"], "The model has 3 classes"),
        (["--eval-only", "train.init_checkpoint=absent.pth", "dataloader.test.dataset=tiny_vla"], "'tiny_vla' is not"),
    ],
)
def test_mistakes_are_one_sentence_without_a_traceback(tiny_run, capsys, arguments, message):
    assert tiny_run.train(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and message in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.out + captured.err


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_where_there_is_none(tiny_run, capsys):
    assert tiny_run.train("train.device=cuda") == 2
    assert "set train.device=cpu" in capsys.readouterr().err


def test_evaluation_names_the_parameter_of_another_shape(tiny_run, capsys):
    """The error names both shapes: training has 4 channels (64 features of the 4x4 pool), evaluation 5 (80)."""
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0") == 0
    capsys.readouterr()
    assert tiny_run.train("--eval-only", "+model.channels=5") == 2
    message = capsys.readouterr().err
    assert tiny_run.train("--resume", "train.max_iter=2", "+model.channels=5") == 2
    assert "'backbone.weight' in another shape" in capsys.readouterr().err
    assert "'backbone.weight' in another shape than the model's, (4, 3, 3, 3) instead of (5, 3, 3, 3)" in message
    assert "lacks" not in message


def test_unknown_config_name(capsys):
    assert main(["--config-file", "detr/detr_r50_50000ep.py"]) == 2
    assert "There is no config named detr/detr_r50_50000ep.py" in capsys.readouterr().err


def length_of(cfg, world_size=1) -> RunLength:
    return resolve_length(cfg.train, cfg.dataloader.train, world_size)


def test_length_follows_from_epochs_images_and_batch(tiny_run):
    cfg = load_config(str(tiny_run.config), ["dataloader.train.total_batch_size=3", "train.epochs=10"])
    length = length_of(cfg)
    assert (length.data.images, length.iterations_per_epoch, length.max_iter) == (8, 2, 20)
    cfg = load_config(str(tiny_run.config), ["dataloader.train.total_batch_size=16", "train.eval_period=0"])
    length = length_of(cfg, world_size=2)
    assert (length.iterations_per_epoch, length.max_iter, cfg.train.eval_period) == (1, 3, 0)
    cfg = load_config(str(tiny_run.config), ["train.max_iter=7"])
    assert length_of(cfg).epochs == 3.5


def test_a_config_that_cannot_be_written_leaves_the_earlier_one(tmp_path, monkeypatch):
    path = tmp_path / "config.yaml"
    write_config(OmegaConf.create({"seed": 1}), path)

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    with pytest.raises(EnvironmentProblem, match=r"config\.yaml cannot be written, as the disk is full"):
        write_config(OmegaConf.create({"seed": 2}), path)
    assert LazyConfig.load(str(path)).seed == 1 and list(tmp_path.iterdir()) == [path]
