"""The table of docs/settings.md: each line works, through every config, and its default is true."""

import re

import pytest
import torch
from omegaconf import OmegaConf

from align_detr import model_zoo
from align_detr.engine.accumulation import check_accumulate
from align_detr.lazy_config import has_key, load_config
from align_detr.overrides import unread_keys
from support.paths import PROJECT
from support.shrink import config

ROW = re.compile(r"^\| ([^|]+) \| `([\w.]+)=([^`|]+)` \| ([^|]+) \| [^|]+ \|$", re.MULTILINE)
TABLE = (PROJECT / "docs/settings.md").read_text().partition("## Settings")[2].partition("\n## ")[0]
LINES = {f"{key}={value}": (key, default.strip("`")) for _, key, value, default in ROW.findall(TABLE)}


def test_the_table_is_whole() -> None:
    assert len(LINES) == TABLE.count("\n| ") - 1 >= 12


@pytest.mark.parametrize("line", LINES)
def test_every_config_has_the_key_and_its_default(line: str) -> None:
    """Where the table says "the config's", defaults differ."""
    key, default = LINES[line]
    assert [name for name in model_zoo.names() if not has_key(config(name), key)] == []
    if default != "the config's":
        # masks are trained on a detector that stays, and on evaluations without pictures
        names = [name for name in model_zoo.names() if not name.startswith("DETRSegmentation/")]
        others = {name: OmegaConf.select(config(name), key) for name in names}
        assert {name: value for name, value in others.items() if str(value) != default} == {}


def test_no_config_has_a_key_that_nothing_reads() -> None:
    assert [key for name in model_zoo.names() for key in unread_keys(config(name).train)] == []


@pytest.mark.parametrize("line", LINES)
def test_each_line_sets_its_key(line: str) -> None:
    """As written, in a config that has all parts."""
    cfg = load_config("quickstart/coco_mini.py", [line])
    value = OmegaConf.select(cfg, LINES[line][0])
    assert str(value).replace("'", "") == line.partition("=")[2] or value == float(line.partition("=")[2])


def test_the_line_of_the_image_size_sets_both_mappers() -> None:
    (line,) = [line for line in LINES if "image_size" in line]
    loaders = load_config("quickstart/coco_mini.py", [line]).dataloader
    assert loaders.test.mapper.augmentations[0].short_edge_length == [480, 480]
    assert max(loaders.train.mapper.augmentations[1].short_edge_length) == 480


def test_all_lines_together_train(tiny_run, capsys) -> None:
    """Each leaves its trace; the tiny data has no sizes, the tiny model no blocks, and loggers need libraries."""
    left_out = ("train.image_size", "train.epochs", "train.checkpoint_activations", "train.loggers")
    left_out += ("train.attention_sparsity",)  # of weights that the tiny model has not
    lines = [line for line in LINES if not line.startswith(left_out)]
    assert tiny_run.train(*lines, "train.epochs=2", "+dataloader.train.filter_empty=False") == 0
    out = capsys.readouterr().out
    for trace in (
        "Batch: 16 images in all, 16 on each process (1), in 4 parts of 4",
        "Learning rates: base 0.0008 (scaled by 4: train.lr_scaling=linear, batch 16 over 4)",
        "Warm-up: 0.5 epochs",
        "Frozen by train.freeze (backbone): 0.000 M parameters in 2 tensors",
        "Best bbox/AP so far",
    ):
        assert trace in out, trace
    best = torch.load(tiny_run.output / "model_best.pth", weights_only=True)
    last = torch.load(tiny_run.output / "model_final.pth", weights_only=True)
    assert last["ema"]["num_updates"] == 2 and best["model"].keys() == last["model"].keys()
    assert {group["name"] for group in last["trainer"]["optimizer"]["param_groups"]} == {"base"}
    assert (tiny_run.output / "weights_best.pth").is_file()


def test_epochs_between_evaluations_replace_iterations() -> None:
    """Also in a config that has iterations, unless both are given."""
    assert config("quickstart/bccd.py").train.eval_period is not None
    assert load_config("quickstart/bccd.py", ["train.eval_epochs=2"]).train.eval_period is None
    assert load_config("quickstart/bccd.py", ["train.eval_epochs=2", "train.eval_period=9"]).train.eval_period == 9


def test_presets_are_settings() -> None:
    """The lines of docs/memory.md, one per size of a GPU, in a config of their kind: parts of whole images."""
    lines = re.findall(r"^\| \d+ GB \| `([^`]+)` \|", (PROJECT / "docs" / "memory.md").read_text(), re.MULTILINE)
    assert len(lines) == 4
    for line in lines:
        cfg = load_config("align_detr/align_dino_r50_4scale_12ep.py", line.split())
        assert check_accumulate(cfg.train.accumulate, cfg.dataloader.train.total_batch_size) > 1
