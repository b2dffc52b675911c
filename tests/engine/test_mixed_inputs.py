"""Pictures and counts of mixed training images, and the training that mixes them, interrupted and not."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from align_detr.engine.mixed_inputs import MixedInputs

MIXES = "mixes=[L(MixUp)(stop=0.7, probability=1, min_visible=1)]"


@pytest.fixture
def mixing_run(tiny_run):
    """Return a run whose first steps of three see mixtures."""
    text = tiny_run.config.read_text().replace("import build_test", "import MixUp, build_test")
    text = text.replace('dataset="tiny_train"', f'dataset="tiny_train", {MIXES}')
    tiny_run.config.write_text(text)
    return tiny_run


OPTIONS = ["train.max_iter=3", "train.eval_period=0", "dataloader.test=null", "train.checkpointer.period=1"]


def test_a_training_that_mixes(mixing_run, capsys) -> None:
    """Images 0 to 8 of 12 are mixed, as 0.7 x 12 is 8.4, and the first drawn. A run that is resumed in
    between ends with the same weights, and counts from there on.
    """
    assert mixing_run.train(*OPTIONS, "train.pictures=3") == 0
    out = capsys.readouterr().out
    assert re.search(r"Mixed 9 of 12 images; \d+ objects were left out of them\.", out)
    assert sorted(path.name for path in (mixing_run.output / "pictures_mixed").iterdir()) == ["1.png", "2.png", "3.png"]
    assert np.asarray(Image.open(mixing_run.output / "pictures_mixed" / "1.png")).shape == (32, 32, 3)
    expected = torch.load(mixing_run.output / "model_final.pth", weights_only=True)["model"]
    for name in ("model_final.pth", "model_0000002.pth", "model_0000001.pth"):
        (mixing_run.output / name).unlink(missing_ok=True)
    (mixing_run.output / "last_checkpoint").write_text("model_0000000.pth")
    assert mixing_run.train("--resume", *OPTIONS, "train.pictures=0") == 0
    assert "Mixed 5 of 8 images" in capsys.readouterr().out
    found = torch.load(mixing_run.output / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_training_that_mixes_nothing_leaves_no_pictures(tiny_run, capsys) -> None:
    assert tiny_run.train("train.max_iter=1", "train.eval_period=0", "dataloader.test=null") == 0
    assert "Mixed" not in capsys.readouterr().out and not (tiny_run.output / "pictures_mixed").exists()


def test_batches_that_end_before_the_first_are_not_counted(tmp_path, caplog) -> None:
    def broken():
        raise ValueError("an image that cannot be read")
        yield

    with caplog.at_level("INFO"):
        with pytest.raises(ValueError, match="cannot be read"):
            list(MixedInputs(broken(), count=1, folder=tmp_path, names=[]))
        assert "Mixed" not in caplog.text
    with caplog.at_level("INFO"):
        list(MixedInputs([[{}]], count=1, folder=tmp_path, names=[]))
    assert "Mixed 0 of 1 images" in caplog.text
