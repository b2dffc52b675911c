"""The detector of digits that comes with the package."""

from pathlib import Path

import torch
from detectron2.config import instantiate
from detectron2.data import DatasetCatalog

import align_detr
from align_detr.checkpoint.contents import read_weights
from align_detr.checkpoint.loading import load_weights
from align_detr.checkpoint.trusted_config import model_config
from align_detr.data.digits import CLASSES, DigitsSpec, register_digits
from align_detr.evaluation.evaluate import evaluate

FILE = Path(align_detr.__file__).parent / "weights" / "digits.pth"


def test_shipped_detector_finds_digits(tmp_path: Path) -> None:
    """Its file is small, read without running code, and enough by itself: AP 78 on 400 held-out images."""
    assert FILE.stat().st_size < 5_000_000
    weights = read_weights(FILE)
    assert weights.class_names == CLASSES and weights.averaged and weights.iteration == 3200
    assert {value.dtype for value in weights.state.values() if value.is_floating_point()} == {torch.float16}
    assert weights.config is not None
    cfg = model_config(weights.config, str(FILE))
    model, loaders = instantiate(cfg.model), cfg.dataloader
    load_weights(model, weights, strict=True)
    loaders.test.dataset, loaders.evaluator.output_dir = "digits_50_val", None
    register_digits("digits_50_val", DigitsSpec(split="val", num_images=50), tmp_path)
    try:
        found = evaluate(loaders, model.eval())["bbox"]
    finally:
        DatasetCatalog.remove("digits_50_val")
    assert found["AP"] > 70 and found["AP50"] > 90
