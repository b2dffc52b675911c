"""Training and evaluation on shards: the numbers of the folder that they were written from."""

import json
import shutil
from pathlib import Path

from align_detr.data.convert import convert
from support.datasets import forgotten

DATA = """
from detectron2.data import transforms as T
from align_detr.data import DetrMapper, find
find({folder!r}).register("of_shards")
dataloader["train"].update(
    dataset="of_shards_train", num_workers=0,
    mapper=L(DetrMapper)(augmentations=[L(T.RandomBrightness)(intensity_min=0.5, intensity_max=1.5)], is_train=True)
)
dataloader["test"].update(dataset="of_shards_val", mapper=L(DetrMapper)(augmentations=[], is_train=False))
"""
OPTIONS = ["train.max_iter=7", "train.checkpointer.period=2", "train.eval_period=3"]
TIMES = {"time", "data_time", "eta_seconds"}


def rows(tiny_run, output: Path) -> list[dict]:
    """Return the lines of metrics.json without times."""
    return [{key: value for key, value in row.items() if key not in TIMES} for row in tiny_run.metrics(output)]


def test_training_evaluation_and_resumption_are_those_of_the_folder(tiny_run, tmp_path):
    """Losses and AP are equal to the last digit, and so they are when the run goes on after four of seven steps."""
    folder, shards = tiny_run.config.parent / "data", tmp_path / "shards"
    plain = tiny_run.config.read_text()
    assert len(convert(folder, to="shards", out=shards, shard_megabytes=0.01).splits) == 2
    assert len(list(shards.glob("train-*.tar"))) > 1

    def train(data: Path, name: str, *more: str) -> list[dict]:
        tiny_run.config.write_text(plain + DATA.format(folder=str(data)))
        with forgotten("of_shards_train", "of_shards_val"):
            assert tiny_run.train(f"train.output_dir={tmp_path / name}", *OPTIONS, *more) == 0
        return rows(tiny_run, tmp_path / name)

    expected = train(folder, "of_folder")
    assert {"total_loss", "bbox/AP"} <= {key for row in expected for key in row}
    assert train(shards, "of_shards") == expected

    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "of_shards", cut)
    for name in ("model_0000005.pth", "model_final.pth"):
        (cut / name).unlink()
    (cut / "last_checkpoint").write_text("model_0000003.pth")
    assert train(shards, "cut", "--resume") == expected
    assert json.loads((cut / "metrics.json").read_text().splitlines()[-1])["iteration"] == expected[-1]["iteration"]
