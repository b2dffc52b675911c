"""Released SMCA weights: every key has a place of the same shape here, and the parameter counts are equal."""

import json

import pytest
import torch
from detectron2.config import instantiate

from align_detr import model_zoo
from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detr import coco_category_ids
from align_detr.errors import ConfigError
from support.paths import GOLDEN

MANIFESTS = sorted((GOLDEN / "manifests").glob("raw_smca_detr_r50.json"))
CONFIG = "SMCA/smca_r50_50ep.py"


@pytest.mark.skipif(not MANIFESTS, reason=f"no manifest raw_smca_detr_r50 in {GOLDEN} (set ALIGN_DETR_GOLDEN)")
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_counts_and_keys(path) -> None:
    manifest = json.loads(path.read_text())
    shapes = manifest["state_dict"]
    cfg = model_zoo.get_config(CONFIG)
    cfg.model.head.num_classes = shapes["class_embed.bias"][0]  # one row more than there are COCO ids
    model = instantiate(cfg.model)
    assert sum(p.numel() for p in model.parameters()) == manifest["params_total"]
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == manifest["params_trainable"]
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    converted = convert(state, num_classes=model.num_classes)
    assert len(converted) == manifest["num_keys"]
    assert {key: tuple(value.shape) for key, value in converted.items()} == {
        key: tuple(value.shape) for key, value in model.state_dict().items()
    }


def tiny_state() -> dict[str, torch.Tensor]:
    """What a release is recognised by, by DETR's rules and by SMCA's, and the classifier's biases."""
    return {
        "transformer.decoder.layers.0.multihead_attn.in_proj_weight": torch.zeros(3, 1),
        "transformer.decoder.layers.0.point3.weight": torch.zeros(2, 1),
        "class_embed.bias": torch.arange(92.0),
    }


def test_coco_rows_are_picked_by_id() -> None:
    converted = convert(tiny_state(), num_classes=80)
    assert converted["head.class_embed.bias"].tolist() == coco_category_ids()
    assert set(converted) == {
        "decoder.layers.0.cross_attn.in_proj_weight",
        "decoder.layers.0.sharpness.weight",
        "head.class_embed.bias",
    }
    for num_classes in (92, 3, None):
        assert len(convert(tiny_state(), num_classes=num_classes)["head.class_embed.bias"]) == 92


@pytest.mark.parametrize("key", ["transformer.decoder.layers.1.point1.layers.0.weight", "point9.weight"])
def test_an_unknown_key_raises(key: str) -> None:
    with pytest.raises(ConfigError, match=f"The key '{key}' is not one of"):
        convert({**tiny_state(), key: torch.zeros(1)}, num_classes=80)
