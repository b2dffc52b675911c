"""Attention of projects under bfloat16: the same predictions as in float32 but for its 8 bits."""

import pytest
import torch
from detectron2.config import instantiate
from torch.testing import assert_close

from align_detr.structures import Predictions
from support.inputs import image_input
from support.shrink import small_model
from support.subject import randomise

CONFIGS = ["AnchorDETR/anchor_detr_r50_50ep.py", "AnchorDETR/anchor_detr_r50_mha_50ep.py", "SMCA/smca_r50_50ep.py"]


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_predictions_under_autocast_are_close_and_float32(name: str) -> None:
    torch.manual_seed(0)
    detector = instantiate(small_model(name)).eval()
    randomise(detector)
    images = [detector.normalize(image_input(*size, 0)["image"]) for size in [(96, 160), (64, 64)]]

    def predict() -> Predictions:
        return detector.predict(detector.encoder(detector.extract_features(images)))["main"]

    full = predict()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = predict()
    assert half.logits.dtype == half.boxes.dtype == torch.float32
    assert_close(half.boxes, full.boxes, atol=0.05, rtol=0)
    assert_close(half.logits, full.logits, atol=0.1, rtol=0)
