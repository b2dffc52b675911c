"""Published SMCA weights: how they are recognised, and the rows of the classifier."""

import pytest
import torch

import align_detr.projects.smca  # noqa: F401  (registers the release)
from align_detr.checkpoint.conversion import convert, find_release
from align_detr.checkpoint.detr import coco_category_ids
from align_detr.errors import ConfigError


def tiny_state() -> dict[str, torch.Tensor]:
    """Return the keys that identify a release to DETR's and to SMCA's rules, and the classifier's biases."""
    return {
        "transformer.decoder.layers.0.multihead_attn.in_proj_weight": torch.zeros(3, 1),
        "transformer.decoder.layers.0.point3.weight": torch.zeros(16, 1),  # two numbers for each of 8 heads
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


@pytest.mark.parametrize("rows", [8, 24])
def test_another_type_of_scale_is_not_taken_for_type_3(rows: int) -> None:
    """One or three numbers for each of 8 heads: what is left is DETR's rules, which name the key they do not know."""
    key = "transformer.decoder.layers.0.point3.weight"
    release = find_release(tiny_state())
    assert release is not None and release.name == "SMCA-DETR"
    other = find_release({**tiny_state(), key: torch.zeros(rows, 1)})
    assert other is not None and other.name == "DETR"
    with pytest.raises(ConfigError, match=f"The key '{key}' is not one of"):
        convert({**tiny_state(), key: torch.zeros(rows, 1)}, num_classes=80)
