"""Published Anchor-DETR weights: how they are recognised, and the rows of the classifier."""

import pytest
import torch

from align_detr.checkpoint.conversion import convert
from align_detr.checkpoint.detr import coco_category_ids
from align_detr.errors import ConfigError
from align_detr.projects.anchor_detr.checkpoint import convert_anchor_detr


def tiny_state(num_projections: int, rows: int) -> dict[str, torch.Tensor]:
    """Return the keys that identify a release, the classifier, and those that only one kind of attention needs."""
    return {
        "transformer.decoder_layers.0.cross_attn.in_proj_weight": torch.zeros(num_projections * 4, 4),
        "transformer.pattern.weight": torch.zeros(3, 4),
        "transformer.adapt_pos1d.0.weight": torch.zeros(4, 4),
        "transformer.class_embed.0.weight": torch.arange(float(rows))[:, None],
        "transformer.class_embed.0.bias": torch.arange(float(rows)),
        "transformer.class_embed.1.bias": torch.arange(float(rows)),
    }


def test_coco_rows_are_picked_by_id() -> None:
    assert convert(tiny_state(5, 91), num_classes=80)["head.class_embed.bias"].tolist() == coco_category_ids()
    for rows, num_classes in [(80, 80), (91, 91), (91, 3), (91, None)]:
        kept = convert_anchor_detr(tiny_state(5, rows), num_classes=num_classes)
        assert kept["head.class_embed.bias"].tolist() == list(range(rows))


def test_axis_mlp_is_dropped_with_ordinary_attention_only() -> None:
    key = "neck.position.axis.layers.0.weight"
    assert key in convert(tiny_state(5, 80), num_classes=80)
    assert key not in convert(tiny_state(3, 80), num_classes=80)


def test_an_unknown_key_raises() -> None:
    with pytest.raises(ConfigError, match="The key 'transformer.extra' is not one of"):
        convert({**tiny_state(5, 80), "transformer.extra": torch.zeros(1)}, num_classes=80)
